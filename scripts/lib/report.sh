# shellcheck shell=bash
# What runs where, and what to try.

# row WHAT WHERE HOW
row() { printf '    %-12s %-44s %s\n' "$1" "$2" "$3"; }

# own_row NAME URL
own_row() { row "$1" "$2" "pid $(pid_of "$1"), log $(shown_path "$LOG_DIR/$1.log")"; }

# server_row NAME VARIABLE URL
server_row() {
    if given "$2"; then
        row "$1" "$(printed_url "$(given_value "$2")")" "given by $2"
    else
        own_row "$1" "$3"
    fi
}

print_report() {
    local backend=http://localhost:$BACKEND_PORT ml=http://localhost:$ML_API_PORT
    printf '\n%s    %-12s %-44s %s%s\n' "$BOLD" what where how "$PLAIN"
    own_row backend "$backend"
    row '' '' "$(parts_of backend "$BACKEND_PORT")"
    own_row ml-api "$ml"
    row '' '' "$(parts_of ml-api "$ML_API_PORT")"
    server_row postgres DATABASE_URL "postgresql://localhost:$POSTGRES_PORT/..."
    server_row redis REDIS_URL "redis://localhost:$REDIS_PORT"
    server_row anvil RPC_URL "http://localhost:$ANVIL_PORT"
    row contract "${CONTRACT:-none}" "chain ${CHAIN_ID:-unknown}"
    if given ADMIN_TOKEN; then
        row ADMIN_TOKEN '' 'as given by the environment'
    else
        row ADMIN_TOKEN '' "in $(shown_path "$ENV_FILE")"
    fi
    print_urls "$backend" "$ml"
}

# print_urls BACKEND ML-API
print_urls() {
    printf '\n%s    to try%s\n' "$BOLD" "$PLAIN"
    printf '    curl %s\n' "$1/api/pools/stats" "$2/pool/stats" "$1/health" "$1/api/liquidation/status" \
        "$1/api/loan-analytics/loan/4" "$1/api/loan-analytics/active" "$2/model/info" "$1/metrics"
    [ -z "$REDIS_PORT" ] || printf '    redis-cli -p %s ping\n' "$REDIS_PORT"
    printf '\n'
}
