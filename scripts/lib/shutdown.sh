# shellcheck shell=bash
# How the stack ends: who sends requests before who answers them, services before servers.

STOP_ORDER=(backend ml-api postgres redis anvil)

any_process_runs() {
    local name
    for name in "${STOP_ORDER[@]}"; do
        ! runs "$name" || return 0
    done
    return 1
}

# stop_everything: fails when something was not orderly; goes on with the rest all the same.
stop_everything() {
    local name orderly=yes
    for name in "${STOP_ORDER[@]}"; do
        stop_one "$name" || orderly=''
    done
    [ -n "$orderly" ]
}

# stop_started: what this run has started, the last first.
stop_started() {
    local i
    for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do
        stop_one "${STARTED[i]}" || true
    done
}

stop_one() {
    case $1 in
        backend | ml-api) stop_service "$1" ;;
        # SIGINT is Postgres' fast shutdown: SIGTERM would wait for clients to leave.
        postgres) stop_process postgres INT 30 ;;
        *) stop_process "$1" TERM 20 ;;
    esac
}

# stop_service NAME: within what it was told it may take (reference: SHUTDOWN_DELAY, SHUTDOWN_TIMEOUT) and ten seconds more.
stop_service() {
    local pid delay timeout
    pid=$(pid_of "$1") || pid=none
    delay=$(setting_of "$pid" SHUTDOWN_DELAY 0) timeout=$(setting_of "$pid" SHUTDOWN_TIMEOUT 25)
    stop_process "$1" TERM $((delay + timeout + 10))
}

# setting_of PID NAME DEFAULT: a number of seconds from its environment.
setting_of() {
    local value
    value=$({ tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null | sed -n "s/^$2=//p") || true
    if [[ $value =~ ^[0-9]+$ ]]; then printf '%s' "$value"; else printf '%s' "$3"; fi
}
