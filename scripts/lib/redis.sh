# shellcheck shell=bash
# The private Redis: on loopback only, its data kept across stops.

# start_redis PORT
start_redis() {
    runs redis && return 0
    step "Redis on port $1"
    private_folder "$STACK_DIR/redis"
    spawn redis env -i PATH="$PATH" LC_ALL=C.UTF-8 "$REDIS_SERVER" --port "$1" --bind 127.0.0.1 \
        --dir "$STACK_DIR/redis" --save 60 1 --daemonize no
    wait_for_server redis redis_answers "$1" PING +PONG
}

# redis_answers PORT COMMAND REPLY
redis_answers() { [ "$(redis_ask "$1" "$2" 2>/dev/null)" = "$3" ]; }

# redis_ask PORT COMMAND: the first line of the reply. By bash alone: redis-cli may not be there.
redis_ask() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf '%s\r\n' "$2" >&3
        IFS= read -r -t 5 reply <&3
        printf '%s' "${reply%$'\r'}"
    )
}
