# shellcheck shell=bash
# The private chain: anvil on loopback, chain id 31337, its state kept across stops.

# start_anvil PORT: sets CHAIN_IS_NEW when there was no state to go on with.
start_anvil() {
    runs anvil && return 0
    step "anvil on port $1"
    local home=$STACK_DIR/anvil
    private_folder "$home"
    # A seeding that broke off is not continued: the chain starts afresh.
    [ ! -e "$home/seeding" ] || rm -f "$home/state.json"
    launch_anvil "$1" && return 0
    [ -s "$home/state.json" ] || server_failed anvil
    mv -f "$home/state.json" "$home/state.json.unreadable"
    warn "anvil does not start with the chain it saved, now in $(shown_path "$home/state.json.unreadable"): a new chain is made"
    launch_anvil "$1" || server_failed anvil
}

launch_anvil() {
    local home=$STACK_DIR/anvil
    local -a time=()
    if [ ! -s "$home/state.json" ]; then
        # shellcheck disable=SC2034 # The services and Redis are told.
        CHAIN_IS_NEW=yes
        # Seeding moves the clock two hours ahead: it ends at the present.
        time=(--timestamp "$(($(date +%s) - 7200))")
    fi
    # Saved now and then, since a killed anvil saves nothing. Quiet: it would print the keys of its accounts.
    spawn anvil env -i PATH="$PATH" HOME="$home" "$ANVIL_PROGRAM" --host 127.0.0.1 --port "$1" --chain-id 31337 \
        --quiet --state "$home/state.json" --state-interval 5 "${time[@]}"
    server_gets_ready anvil chain_id_is "http://localhost:$1" 31337
}

chain_id_is() { [ "$(chain_id_of "$1")" = "$2" ]; }
