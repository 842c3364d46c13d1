# shellcheck shell=bash
# Which port each process gets: the guide's where it is free, else the next free one.

# The guide's ports; a process that has to move keeps away from the others'.
declare -A GUIDE_PORTS=([backend]=3001 [ml-api]=3002 [postgres]=5432 [redis]=6379 [anvil]=8000)
# Chosen in this run, by port.
declare -A CLAIMED=()

# listening_inodes PORT: the socket of every listener on it, whatever its address.
listening_inodes() {
    local hex
    hex=$(printf '%04X' "$1")
    awk -v port=":$hex\$" '$4 == "0A" && $2 ~ port { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

port_is_taken() { [ -n "$(listening_inodes "$1")" ]; }

# port_owner PORT: " by NAME (pid N)" where we may know.
port_owner() {
    local inode fd pid
    for inode in $(listening_inodes "$1"); do
        fd=$(find /proc/[0-9]*/fd -lname "socket:\\[$inode\\]" -print -quit 2>/dev/null) || true
        [ -n "$fd" ] || continue
        pid=${fd#/proc/} pid=${pid%%/*}
        printf ' by %s (pid %s)' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid"
        return 0
    done
}

# port_is_reserved NAME PORT: whether the guide gives it to another process, or this run did.
port_is_reserved() {
    [ -z "${CLAIMED[$2]:-}" ] || return 0
    local other
    for other in "${!GUIDE_PORTS[@]}"; do
        [ "$other" = "$1" ] || [ $((GUIDE_PORTS[$other] + PORT_OFFSET)) -ne "$2" ] || return 0
    done
    return 1
}

# recorded_port NAME: the port it runs on, or ran on before it died; empty when it was stopped.
recorded_port() { cat "$RUN_DIR/$1.port" 2>/dev/null || true; }

# claim_port NAME PORT: sets CHOSEN_PORT.
# shellcheck disable=SC2034 # It is the answer of all that choose.
claim_port() {
    CHOSEN_PORT=$2
    CLAIMED[$2]=$1
    printf '%s\n' "$2" >"$RUN_DIR/$1.port"
}

# choose_port NAME: sets CHOSEN_PORT.
choose_port() {
    local name=$1 wanted=$((GUIDE_PORTS[$1] + PORT_OFFSET)) before port
    before=$(recorded_port "$name")
    # A process that has died gets its port back, so that those who use it need not be told.
    if [ -n "$before" ] && { runs "$name" || ! port_is_taken "$before"; }; then
        claim_port "$name" "$before"
        return 0
    fi
    for ((port = wanted; port < wanted + 200 && port < 65536; port++)); do
        if ! port_is_reserved "$name" "$port" && ! port_is_taken "$port"; then
            [ "$port" -eq "$wanted" ] || say "port $wanted is taken$(port_owner "$wanted"): $name uses $port"
            claim_port "$name" "$port"
            return 0
        fi
    done
    fail "no free port for $name from $wanted on" 'choose other ports with --port-offset'
}

# insist_on_port NAME VARIABLE: sets CHOSEN_PORT to the one that the environment names, which must be free or our own.
insist_on_port() {
    local name=$1 port=${!2}
    [[ $port =~ ^[0-9]{1,5}$ ]] || fail "$2: \"$port\" is not a port" "correct $2"
    if port_is_taken "$port" && ! { runs "$name" && [ "$(recorded_port "$name")" = "$port" ]; }; then
        fail "port $port ($2) is taken$(port_owner "$port")" \
            "free it, give another $2, or leave $2 out: then a free port is looked for"
    fi
    claim_port "$name" "$port"
}

# choose_service_port NAME VARIABLE: sets CHOSEN_PORT; the environment may name one.
choose_service_port() {
    if [ -n "${!2:-}" ]; then insist_on_port "$1" "$2"; else choose_port "$1"; fi
}
