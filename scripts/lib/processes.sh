# shellcheck shell=bash
# Processes that outlive the script that started them, and how they are found again.
#
# A record (run/NAME.process) holds pid, start time and boot: a pid that the system gave to somebody else since then
# is never signalled.

# process_stat PID: the fields of /proc/PID/stat behind the name, which may hold spaces and brackets; fails when it is gone.
process_stat() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null && printf '%s' "${stat##*) }"
}

# start_time PID: in clock ticks since the system's start; fails when the process has ended, waited for or not.
start_time() {
    local -a fields
    read -ra fields <<<"$(process_stat "$1")"
    case ${fields[0]:-gone} in
        gone | Z | X) return 1 ;;
    esac
    printf '%s' "${fields[19]}"
}

# record_process NAME PID
record_process() {
    local boot
    boot=$(</proc/sys/kernel/random/boot_id)
    printf '%s %s %s\n' "$2" "$(start_time "$2")" "$boot" >"$RUN_DIR/$1.process"
}

# pid_of NAME: the pid of the recorded process; fails when it does not run.
pid_of() {
    local pid started boot
    { read -r pid started boot <"$RUN_DIR/$1.process"; } 2>/dev/null || return 1
    [ "$boot" = "$(</proc/sys/kernel/random/boot_id)" ] && [ "$(start_time "$pid")" = "$started" ] && printf '%s' "$pid"
}

# runs NAME: whether the recorded process runs.
runs() { pid_of "$1" >/dev/null; }

# fresh_log NAME: sets the log of the run before aside.
fresh_log() {
    [ ! -s "$LOG_DIR/$1.log" ] || mv -f "$LOG_DIR/$1.log" "$LOG_DIR/$1.log.old"
    : >"$LOG_DIR/$1.log"
}

# let_go: what a child that stays must not hold: the lock, and the caller's output, which may be a pipe that is read to its end.
let_go() { exec {LOCK_FD}>&- {KEPT_STDOUT}>&- {KEPT_STDERR}>&-; }

# spawn NAME COMMAND…: starts it in a session of its own, out of reach of the terminal's Ctrl-C, and records it.
spawn() {
    local name=$1
    shift
    fresh_log "$name"
    drop_process "$name"
    STARTED+=("$name")
    (
        let_go
        # Written by the process itself: there is no moment in which it runs unrecorded. `exec` keeps pid and start time.
        record_process "$name" "$BASHPID"
        # A background job of a script is born with SIGINT ignored.
        exec setsid env --default-signal=INT,QUIT -- "$@"
    ) </dev/null >>"$LOG_DIR/$name.log" 2>&1 &
    disown
    await_record "$name"
}

# spawn_kept NAME COMMAND…: the same under a keeper, which writes down the exit code. What SPAWN_ENV holds
# (NAME=VALUE) is added to its environment; not as arguments, which everybody on the machine may read.
spawn_kept() {
    local name=$1
    shift
    fresh_log "$name"
    drop_process "$name"
    : >"$RUN_DIR/$name.exit"
    STARTED+=("$name")
    (
        let_go
        export RUN_DIR "${SPAWN_ENV[@]}"
        exec setsid env --default-signal=INT,QUIT bash "$LIB/keeper.sh" "$name" "$@"
    ) </dev/null >>"$LOG_DIR/$name.log" 2>&1 &
    disown
    await_record "$name"
}

await_record() {
    within 10 test -s "$RUN_DIR/$1.process" || fail "$1 was not started" "read $(shown_path "$LOG_DIR/$1.log")"
}

drop_process() { rm -f "$RUN_DIR/$1".{process,exit}; }

drop_record() { rm -f "$RUN_DIR/$1".{process,exit,port}; }

# has_keeper NAME: whether it was started by `spawn_kept`.
has_keeper() { [ -e "$RUN_DIR/$1.exit" ]; }

# within SECONDS COMMAND…: whether it succeeds by then; asked ten times a second.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

has_ended() { ! runs "$1"; }

# exit_code_of NAME: what its keeper wrote down, or nothing.
exit_code_of() {
    within 2 test -s "$RUN_DIR/$1.exit" || return 0
    cat "$RUN_DIR/$1.exit"
}

# stop_process NAME SIGNAL SECONDS: ends it, with SIGKILL when it takes longer; reports how; fails when it was not orderly.
stop_process() {
    local name=$1 signal=$2 bound=$3 pid began=${EPOCHREALTIME/[.,]/} took orderly=yes
    if ! pid=$(pid_of "$name"); then
        [ ! -e "$RUN_DIR/$name.process" ] || say "$name had ended before$(ended_how "$name")"
        drop_record "$name"
        return 0
    fi
    kill -s "$signal" "$pid" 2>/dev/null || true
    if within "$bound" has_ended "$name"; then
        took=$(((${EPOCHREALTIME/[.,]/} - began) / 10000))
        say "$(printf '%s stopped%s after %d.%02d s' "$name" "$(ended_how "$name")" $((took / 100)) $((took % 100)))"
        if has_keeper "$name" && [ "$(exit_code_of "$name")" != 0 ]; then
            warn "$name did not end in order: read $(shown_path "$LOG_DIR/$name.log")"
            orderly=''
        fi
    else
        kill -s KILL "$pid" 2>/dev/null || true
        warn "$name (pid $pid) was still there $bound s after SIG$signal and was killed"
        within 5 has_ended "$name" || warn "$name (pid $pid) does not even end on SIGKILL"
        orderly=''
    fi
    drop_record "$name"
    [ -n "$orderly" ]
}

# ended_how NAME: " with exit code N" for a process that has a keeper.
ended_how() {
    has_keeper "$1" || return 0
    local code
    code=$(exit_code_of "$1")
    printf ' with exit code %s' "${code:-unknown: its keeper was killed}"
}
