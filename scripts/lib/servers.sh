# shellcheck shell=bash
# What the private servers have in common: they get ready in bounded time, or the reason is shown.

SERVER_BOUND=30

# server_gets_ready NAME CHECK…: whether the check succeeds before the process ends or the time is over.
server_gets_ready() {
    local name=$1 end=$((SECONDS + SERVER_BOUND))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] && runs "$name" || return 1
        sleep 0.1
    done
}

# wait_for_server NAME CHECK…: the same, and the end of the run when it does not.
wait_for_server() { server_gets_ready "$@" || server_failed "$1"; }

server_failed() {
    tail_of "$LOG_DIR/$1.log"
    if runs "$1"; then
        fail "$1 runs, but is not ready after $SERVER_BOUND s" "see its log above, and try again"
    fi
    fail "$1 does not start" \
        "see its log above; ./scripts/down --wipe throws all data away, for a fresh start"
}
