# shellcheck shell=bash
# The state directory: what it holds, who may change it, what is remembered between runs.
#
#   .stack/this-is-a-stack   marks it, so that nothing else is ever wiped
#   .stack/env               made-up secrets and chosen addresses, mode 600; `. .stack/env` to run a service by hand
#   .stack/logs/NAME.log     output of the process that runs; NAME.log.old of the one before
#   .stack/run/              records of processes and ports; gone when nothing runs
#   .stack/postgres redis anvil   the servers' data

MARKER=this-is-a-stack

# choose_stack DIRECTORY: sets STACK_DIR to its absolute path, without making it.
choose_stack() {
    case $1 in
        /*) STACK_DIR=${1%/} ;;
        *) STACK_DIR=$PWD/${1%/} ;;
    esac
    [ ! -d "$STACK_DIR" ] || STACK_DIR=$(cd "$STACK_DIR" && pwd -P)
    RUN_DIR=$STACK_DIR/run LOG_DIR=$STACK_DIR/logs ENV_FILE=$STACK_DIR/env
}

# is_stack: whether STACK_DIR is one of ours.
is_stack() { [ -f "$STACK_DIR/$MARKER" ]; }

# open_stack: makes the directory where it is missing; refuses one that holds something else.
open_stack() {
    if ! is_stack && [ -n "$(ls -A "$STACK_DIR" 2>/dev/null)" ]; then
        fail "$(shown_path "$STACK_DIR") holds files that are not a stack's" 'name another directory with --dir'
    fi
    mkdir -p "$STACK_DIR" || fail "$(shown_path "$STACK_DIR") cannot be made" 'name another directory with --dir'
    STACK_DIR=$(cd "$STACK_DIR" && pwd -P)
    choose_stack "$STACK_DIR"
    # Postgres may run as another user, who must get through to its data.
    chmod 755 "$STACK_DIR"
    : >"$STACK_DIR/$MARKER"
    private_folder "$RUN_DIR"
    private_folder "$LOG_DIR"
    [ -e "$ENV_FILE" ] || (umask 077 && : >"$ENV_FILE")
    chmod 600 "$ENV_FILE"
}

# private_folder DIRECTORY: makes it for its owner alone.
private_folder() { (umask 077 && mkdir -p "$1"); }

# lock_stack: one `up` or `down` at a time. Children that stay must not inherit LOCK_FD: see `let_go`.
lock_stack() {
    exec {LOCK_FD}>"$STACK_DIR/lock"
    flock --nonblock "$LOCK_FD" && return 0
    say "another ./scripts/up or ./scripts/down is at work here; waiting for it"
    flock --timeout 120 "$LOCK_FD" ||
        fail "another ./scripts/up or ./scripts/down is still at work on $(shown_path "$STACK_DIR")" \
            'wait for it, or stop it with Ctrl-C, and try again'
}

unlock_stack() { exec {LOCK_FD}>&-; }

# remembered NAME: its value in the env file; empty when there is none.
remembered() { sed -n "s/^$1=//p" "$ENV_FILE" 2>/dev/null | tail -n 1; }

# remember NAME VALUE: keeps it in the env file. Values are addresses and hexadecimal: nothing that a shell would read twice.
remember() {
    [ "$(remembered "$1")" != "$2" ] || return 0
    local new=$ENV_FILE.new
    (umask 077 && { grep -v "^$1=" "$ENV_FILE" || true; printf '%s=%s\n' "$1" "$2"; } >"$new")
    mv -f "$new" "$ENV_FILE"
}

# forget NAME: drops it from the env file, since the environment names another.
forget() {
    [ -n "$(remembered "$1")" ] || return 0
    (umask 077 && { grep -v "^$1=" "$ENV_FILE" || true; } >"$ENV_FILE.new")
    mv -f "$ENV_FILE.new" "$ENV_FILE"
}

# random_hex BYTES
random_hex() { od -An -vtx1 -N "$1" /dev/urandom | tr -d ' \n'; }

# given NAME: whether the environment names a value, itself or in the file that NAME_FILE names.
given() {
    local file=$1_FILE
    [ -n "${!1:-}" ] || [ -n "${!file:-}" ]
}

# given_value NAME
given_value() {
    local file=$1_FILE
    if [ -n "${!1:-}" ]; then
        printf '%s' "${!1}"
    else
        cat -- "${!file}" || fail "$1_FILE: ${!file} cannot be read" "correct $1_FILE"
    fi
}

# wipe_stack: removes the directory with all data.
wipe_stack() {
    # Postgres' data may be elsewhere: see `place_postgres`.
    if [ -L "$STACK_DIR/postgres" ]; then
        local elsewhere
        elsewhere=$(readlink "$STACK_DIR/postgres")
        rm -rf -- "$elsewhere"
        rmdir --ignore-fail-on-non-empty "$(dirname "$elsewhere")"
    fi
    rm -rf -- "$STACK_DIR"
}
