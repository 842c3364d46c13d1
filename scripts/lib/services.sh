# shellcheck shell=bash
# The two services: built, started by their environment alone, ready, and the same ones again while nothing changed.

READY_BOUND=60

# build: always the same programs in one go. Apart, or now these and now those, each set has its own features of what all of
# them use, and most of that is compiled again. The images are built apart, so that ml-api has no pool that only the backend uses.
build() {
    step 'building in release mode (minutes the first time)'
    (cd "$ROOT" && cargo build --release --bins --target-dir "${TARGET%/release}" \
        -p backend -p ml-api -p testkit --features testkit/devchain) ||
        fail 'the services do not build' 'see what cargo says above; what ran before runs on unchanged'
}

# compose_environments: sets BACKEND_ENV and ML_ENV, what each service is told beyond the environment given to us.
compose_environments() {
    BACKEND_ENV=("PORT=$BACKEND_PORT") ML_ENV=("ML_PORT=$ML_API_PORT")
    given ML_SERVICE_URL || BACKEND_ENV+=("ML_SERVICE_URL=http://localhost:$ML_API_PORT")
    given REDIS_URL || BACKEND_ENV+=("REDIS_URL=redis://localhost:$REDIS_PORT")
    given RPC_URL || BACKEND_ENV+=("RPC_URL=http://localhost:$ANVIL_PORT")
    given LOANVERSE_CONTRACT_ADDRESS || [ -z "$CONTRACT" ] || BACKEND_ENV+=("LOANVERSE_CONTRACT_ADDRESS=$CONTRACT")
    local key
    key=$(liquidator_key)
    given LIQUIDATOR_PRIVATE_KEY || [ -z "$key" ] || BACKEND_ENV+=("LIQUIDATOR_PRIVATE_KEY=$key")
    given DATABASE_URL || ML_ENV+=("DATABASE_URL=$(private_database_url)")
    if ! given ADMIN_TOKEN; then
        [ -n "$(remembered ADMIN_TOKEN)" ] || remember ADMIN_TOKEN "$(random_hex 32)"
        BACKEND_ENV+=("ADMIN_TOKEN=$(remembered ADMIN_TOKEN)") ML_ENV+=("ADMIN_TOKEN=$(remembered ADMIN_TOKEN)")
    fi
    remember_environments
}

private_database_url() {
    printf 'postgresql://loanverse:%s@localhost:%s/loanverse' "$(remembered POSTGRES_PASSWORD)" "$POSTGRES_PORT"
}

# remember_environments: for whoever wants to run a service by hand. What was given to us is not ours to keep.
remember_environments() {
    local pair name
    local -A ours=()
    for pair in "${BACKEND_ENV[@]}" "${ML_ENV[@]}"; do
        ours[${pair%%=*}]=yes
        remember "${pair%%=*}" "${pair#*=}"
    done
    for name in ML_SERVICE_URL REDIS_URL RPC_URL DATABASE_URL LOANVERSE_CONTRACT_ADDRESS LIQUIDATOR_PRIVATE_KEY; do
        [ -n "${ours[$name]:-}" ] || forget "$name"
    done
}

# start_service NAME PORT VARIABLE…: leaves one alone that runs with this program and these settings.
start_service() {
    local name=$1 port=$2 program=$TARGET/$1 pid why
    SPAWN_ENV=("${@:3}")
    if pid=$(pid_of "$name"); then
        why=$(why_again "$name" "$pid" "$program")
        [ -n "$why" ] || return 0
        step "$name on port $port, again: $why"
        stop_service "$name" || true
        claim_port "$name" "$port"
    else
        step "$name on port $port"
    fi
    spawn_kept "$name" "$program"
}

# why_again NAME PID PROGRAM: why a service that runs has to be started anew; nothing when it has not.
why_again() {
    if [ "$1" = backend ] && [ -n "$CHAIN_IS_NEW" ]; then
        printf 'its chain is a new one'
    elif ! [ "/proc/$2/exe" -ef "$3" ]; then
        printf 'it was built anew'
    elif ! settings_are_those_of "$2" "$3"; then
        printf 'its settings changed'
    fi
}

# settings_are_those_of PID PROGRAM: compares what the program's help mentions, since a shell's environment changes all the time.
settings_are_those_of() {
    local names
    names=$("$2" --help | grep -oE '\b[A-Z][A-Z0-9_]+\b' | sort -u | paste -sd '|')
    cmp -s <(grep -zE "^($names)=" "/proc/$1/environ" | sort -z) \
        <(export "${SPAWN_ENV[@]}" && env -0 | grep -zE "^($names)=" | sort -z)
}

# await_service NAME PORT
await_service() {
    local name=$1 end=$((SECONDS + READY_BOUND)) why
    until http_get "http://localhost:$2/health/ready" >/dev/null; do
        why=''
        runs "$name" || why="$name ended during its start$(ended_how "$name")"
        [ "$SECONDS" -lt "$end" ] || why="$name runs, but is not ready after $READY_BOUND s"
        if [ -n "$why" ]; then
            tail_of "$LOG_DIR/$name.log"
            fail "$why" "its log above says why; all of it: $(shown_path "$LOG_DIR/$name.log")"
        fi
        sleep 0.1
    done
}

http_get() { curl --silent --fail --max-time 5 --noproxy localhost "$1" 2>/dev/null; }

# await_connections: the services are ready without their servers; a moment later they have found them.
await_connections() { within 15 everything_is_up || warn 'not everything is up yet: see the table'; }

everything_is_up() { [[ $(parts_of backend "$BACKEND_PORT")$(parts_of ml-api "$ML_API_PORT") != *' down'* ]]; }

# parts_of NAME PORT: what its /health says of the servers behind it, such as "redis up, chain down".
parts_of() {
    local body
    body=$(http_get "http://localhost:$2/health") || {
        printf '%s' "$1 down"
        return 0
    }
    { grep -oE '"[a-z]+" *: *"(up|down)"' <<<"$body" || true; } | tr -d '"' | sed 's/ *: */ /' | paste -sd ',' | sed 's/,/, /g'
}
