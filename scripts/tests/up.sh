#!/usr/bin/env bash
# The stack as a newcomer meets it: started, asked, broken, repaired, stopped, with nothing left behind.
#
#   scripts/tests/up.sh    needs jq; uses a directory and ports of its own. Every wait is bounded.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
STACK_DIR=$(mktemp -d)
OUTPUT=$(mktemp)
export STACK_DIR
PROCESSES=(backend ml-api postgres redis anvil)
# A developer's own settings are no part of this.
unset DATABASE_URL REDIS_URL RPC_URL PORT ML_PORT ML_SERVICE_URL ADMIN_TOKEN LOANVERSE_CONTRACT_ADDRESS LIQUIDATOR_PRIVATE_KEY

check() { printf '    holds: %s\n' "$*"; }

broken() {
    printf 'does not hold: %s\n' "$*" >&2
    tail -n 40 "$OUTPUT" >&2
    tail -n 15 "$STACK_DIR"/logs/*.log >&2 || true
    exit 1
}

clean_up() {
    local status=$?
    "$ROOT/scripts/down" --wipe >/dev/null 2>&1 || true
    rm -rf "$STACK_DIR" "$OUTPUT"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# up ARGUMENT…: the first one builds.
up() { timeout 1500 "$ROOT/scripts/up" --port-offset 21000 "$@" >"$OUTPUT" 2>&1; }

# chosen NAME: what `up` wrote down.
chosen() { sed -n "s/^$1=//p" "$STACK_DIR/env"; }

backend() { curl -sS --max-time 10 --noproxy '*' "http://localhost:$(chosen PORT)$1"; }
ml_api() { curl -sS --max-time 10 --noproxy '*' "http://localhost:$(chosen ML_PORT)$1" "${@:2}"; }
loan_status() { backend "/api/loan-analytics/loan/$1" | jq -r .statusName; }

# within SECONDS COMMAND…
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

pids() { (cd "$STACK_DIR/run" && head -qn 1 "${PROCESSES[@]/%/.process}") | cut -d ' ' -f 1,2; }
pid() { cut -d ' ' -f 1 "$STACK_DIR/run/$1.process"; }

# listeners PORT: the local address of each, as the kernel writes it.
listeners() { awk -v port=":$(printf '%04X' "$1")\$" '$4 == "0A" && $2 ~ port { print $2 }' /proc/net/tcp /proc/net/tcp6; }

somebody_listens() { [ -n "$(listeners "$1")" ]; }

# leftovers: processes that were told of our directory, by argument or by environment; not this script's own session.
leftovers() {
    local process
    { grep -lsaF "$STACK_DIR" /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true; } | cut -d / -f 3 | sort -u |
        while read -r process; do
            [ "$(session_of "$process")" = "$(session_of $$)" ] || { tr '\0' ' ' <"/proc/$process/cmdline"; } 2>/dev/null || true
        done
}

session_of() { sed -E 's/.*\) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 4; }

nothing_is_left() {
    local port
    for port in "${PORTS[@]}"; do
        ! somebody_listens "$port" || return 1
    done
    [ -z "$(leftovers)" ] && [ -z "$(ls -A "$STACK_DIR/run" 2>/dev/null)" ]
}

stats_show_real_pools() {
    backend /api/pools/stats | jq -e '.http.maxSockets == 50 and .http.maxFreeSockets == 10 and .redis.connected
        and .blockchain.activeProviders >= 1' >/dev/null &&
        ml_api /pool/stats | jq -e '.status == "active" and .pool_configured and .size == 10' >/dev/null
}

# first_block: its hash tells one chain from another that was seeded in the same way.
first_block() {
    curl -sS --max-time 10 --noproxy '*' -H 'content-type: application/json' "$(chosen RPC_URL)" \
        -d '{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["0x1",false]}' | jq -r .result.hash
}

record_a_loan() {
    ml_api /data/record -f -o "$OUTPUT" -H 'content-type: application/json' -d '{"loan_id":"kept","loan_amount":1}'
}

recorded_loans() { ml_api /data/statistics | jq -c .; }

is_defaulted() { [ "$(loan_status "$1")" = defaulted ]; }

up --detach || broken 'up --detach ends with exit code 0'
check 'up --detach ends with exit code 0'
mapfile -t PORTS < <(cat "$STACK_DIR"/run/*.port)

within 20 stats_show_real_pools || broken "both stats endpoints show connected pools with the guide's numbers"
check "both stats endpoints show connected pools with the guide's numbers"

[ "$(stat -c %a "$STACK_DIR/env")" = 600 ] || broken 'what is secret is readable by its owner alone'
for secret in ADMIN_TOKEN POSTGRES_PASSWORD LIQUIDATOR_PRIVATE_KEY; do
    if grep -rqF "$(chosen "$secret")" "$OUTPUT" "$STACK_DIR/logs" "$STACK_DIR/run"; then broken "$secret is in no output"; fi
done
check 'secrets are random, in one file of mode 600, in no output and no log'

for server in postgres redis anvil; do
    [[ $(listeners "$(cat "$STACK_DIR/run/$server.port")") =~ ^0100007F:[0-9A-F]{4}$ ]] || broken "$server listens on loopback only"
done
check 'the private servers listen on loopback only'

within 60 is_defaulted 4 || broken 'the overdue loan 4 is liquidated within 60 s'
check 'the overdue loan 4 is liquidated within 60 s'
[ "$(loan_status 11)" = funded ] || broken 'the healthy loan 11 stays'
check 'the healthy loan 11 stays'

before=$(pids) began=$SECONDS
up --detach || broken 'a second up succeeds'
[ $((SECONDS - began)) -le 10 ] || broken "a second up is quick, not $((SECONDS - began)) s"
[ "$(pids)" = "$before" ] || broken 'a second up changes nothing'
check 'a second up is quick and changes nothing'

for name in backend redis postgres; do kill -KILL "$(pid "$name")"; done
survivors="$(pid ml-api) $(pid anvil)"
up --detach || broken 'up repairs a stack of which half was killed'
[ "$(pid ml-api) $(pid anvil)" = "$survivors" ] || broken 'a repair leaves alone what runs'
within 20 stats_show_real_pools || broken 'a repaired stack answers as before'
check 'up repairs a stack of which half was killed, and leaves the rest alone'

record_a_loan || broken 'ml-api records a loan'
chain=$(first_block) loans=$(recorded_loans)
timeout 200 "$ROOT/scripts/down" >"$OUTPUT" 2>&1 || broken 'down ends with exit code 0'
for name in backend ml-api; do
    grep -q "$name stopped with exit code 0" "$OUTPUT" || broken "$name ends in order"
done
within 2 nothing_is_left || broken "after down no process, listener or record is left: $(leftovers)"
check 'down ends the services with exit code 0 and leaves no process, listener or record'

# An interactive shell's child has SIGINT at its default; a script's background job has not.
env --default-signal=INT,QUIT setsid "$ROOT/scripts/up" --port-offset 21000 >"$OUTPUT" 2>&1 &
foreground=$!
within 120 grep -q 'Ctrl-C stops everything' "$OUTPUT" || broken 'up stays in the foreground'
[[ $chain == 0x* && $(first_block) == "$chain" ]] || broken 'the chain of before is there again'
[ "$(recorded_loans)" = "$loans" ] || broken "the recorded loans are there again: $(recorded_loans), not $loans"
check 'down keeps the data'
kill -INT "$foreground"
wait "$foreground" || broken 'Ctrl-C ends up with exit code 0'
within 2 nothing_is_left || broken "Ctrl-C leaves nothing: $(leftovers)"
check 'Ctrl-C takes everything down'

# A port that somebody else has: redis-server listens on it for us.
redis-server --port 23999 --bind 127.0.0.1 --save '' --daemonize no >/dev/null &
blocker=$!
within 10 somebody_listens 23999 || broken 'the other server listens'
if PORT=23999 up --detach; then broken 'a taken port is an error'; fi
kill "$blocker"
grep -A 1 'port 23999 (PORT) is taken by redis-server' "$OUTPUT" | grep -q 'next: ' || broken 'a taken port is named with the next step'
within 2 nothing_is_left || broken "a failed start leaves nothing: $(leftovers)"
check 'a taken port is named with its owner and the next step, and nothing stays behind'

"$ROOT/scripts/down" --wipe >"$OUTPUT" 2>&1 || broken 'down --wipe ends with exit code 0'
[ ! -e "$STACK_DIR" ] || broken 'down --wipe removes the data'
check 'down --wipe removes the data'
