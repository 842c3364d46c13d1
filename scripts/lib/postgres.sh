# shellcheck shell=bash
# The private Postgres: on loopback only, with a random password, no Unix socket.

# Postgres refuses to run as root.
postgres_user() {
    if getent passwd postgres >/dev/null; then printf postgres; else printf nobody; fi
}

# as_postgres COMMAND…: as that user where we are root; nothing of our environment gets in.
as_postgres() {
    local -a other=()
    [ "$(id -u)" -ne 0 ] || other=("${SETPRIV[@]}")
    env -i PATH="$PATH" LC_ALL=C.UTF-8 "${other[@]}" "$@"
}

# place_postgres: makes the data's folder; elsewhere when the other user does not get through to ours (a clone below /root).
place_postgres() {
    PG_HOME=$STACK_DIR/postgres
    if [ "$(id -u)" -ne 0 ]; then
        private_folder "$PG_HOME"
        return 0
    fi
    local user elsewhere
    user=$(postgres_user)
    SETPRIV=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
    if [ ! -e "$PG_HOME" ] && ! as_postgres test -x "$STACK_DIR/."; then
        elsewhere=/var/lib/loanverse-stack/$(printf '%s' "$STACK_DIR" | sha256sum | cut -c 1-16)
        say "the user $user may not enter $(shown_path "$STACK_DIR"): Postgres keeps its data in $elsewhere"
        mkdir -p "$elsewhere"
        ln -sfn "$elsewhere" "$PG_HOME"
    fi
    # The way there is by its real name: the link is behind the same closed door.
    PG_HOME=$(readlink -f "$PG_HOME")
    mkdir -p "$PG_HOME"
    chown "$user:" "$PG_HOME"
    chmod 700 "$PG_HOME"
}

# start_postgres PORT
start_postgres() {
    place_postgres
    runs postgres && return 0
    nobody_in_data || fail 'an old Postgres still works in the data directory' 'wait a moment and try again'
    # A killed server's lock: its pid may be somebody else's by now, or a zombie's, and Postgres would give up.
    rm -f "$PG_HOME/data/postmaster.pid"
    step "Postgres on port $1"
    local password
    password=$(remembered POSTGRES_PASSWORD)
    if [ ! -f "$PG_HOME/data/PG_VERSION" ] || [ ! -f "$PG_HOME/complete" ] || [ -z "$password" ]; then
        password=$(random_hex 24)
        remember POSTGRES_PASSWORD "$password"
        make_cluster "$password"
    fi
    launch_postgres "$1"
}

launch_postgres() {
    local -a other=()
    [ "$(id -u)" -ne 0 ] || other=("${SETPRIV[@]}")
    spawn postgres env -i PATH="$PATH" LC_ALL=C.UTF-8 "${other[@]}" "$POSTGRES_BIN/postgres" -D "$PG_HOME/data" \
        -p "$1" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c dynamic_shared_memory_type=mmap
    wait_for_server postgres postgres_is_ready
}

# make_cluster PASSWORD: a new data directory, or in an old one only the password anew.
make_cluster() {
    local log=$LOG_DIR/initdb.log data=$PG_HOME/data
    # A first attempt that broke off holds nothing yet.
    [ -f "$PG_HOME/complete" ] || rm -rf "$data"
    if [ ! -d "$data" ]; then
        # Without a Unix socket only TCP is left, and that asks for the password set below.
        as_postgres "$POSTGRES_BIN/initdb" -D "$data" --username=postgres --auth-local=reject --auth-host=scram-sha-256 \
            --encoding=UTF8 --locale=C.UTF-8 >"$log" 2>&1 || cluster_failed "$log"
        as_postgres "$POSTGRES_BIN/postgres" --single -D "$data" template1 >>"$log" 2>&1 <<SQL || cluster_failed "$log"
CREATE ROLE loanverse LOGIN
CREATE DATABASE loanverse OWNER loanverse
SQL
    fi
    # In this mode a statement ends with its line. One that fails would be logged with the password.
    as_postgres "$POSTGRES_BIN/postgres" --single -c log_min_error_statement=panic -D "$data" template1 >>"$log" 2>&1 <<SQL || cluster_failed "$log"
ALTER ROLE postgres PASSWORD '$1'
ALTER ROLE loanverse PASSWORD '$1'
SQL
    : >"$PG_HOME/complete"
}

cluster_failed() {
    tail_of "$1"
    fail 'the Postgres data directory could not be made' \
        "see the log above; ./scripts/down --wipe starts afresh, DATABASE_URL names another server"
}

# postgres_is_ready: the server writes its state to the eighth line of postmaster.pid, and its pid to the first.
postgres_is_ready() {
    local -a lines
    { mapfile -t lines <"$PG_HOME/data/postmaster.pid"; } 2>/dev/null || return 1
    [ "${lines[0]:-}" = "$(pid_of postgres)" ] && [[ ${lines[7]:-} == ready* ]]
}

# nobody_in_data: a killed postmaster's children need a moment to notice; they work in the data directory.
nobody_in_data() { within 10 no_process_in "$PG_HOME/data"; }

no_process_in() {
    local cwd
    for cwd in /proc/[0-9]*/cwd; do
        [ ! "$cwd" -ef "$1" ] || return 1
    done
}
