# shellcheck shell=bash
# The chain's side of the stack: which chain it is, whether the development contract is put on it, who liquidates.

DEVELOPMENT_CHAIN=31337
# Account 9 of anvil's standard ten, published with anvil: worthless elsewhere, and passed to no other chain.
PUBLISHED_LIQUIDATOR_KEY=0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6

# chain_id_of URL: decimal; fails when nothing answers. The URL may hold a key: it is no argument.
chain_id_of() {
    local answer call='{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    answer=$(curl --silent --fail --max-time 10 --noproxy localhost,127.0.0.1 --header 'content-type: application/json' \
        --data "$call" --config - <<<"url = \"$1\"") || return 1
    [[ $answer =~ \"result\"[[:space:]]*:[[:space:]]*\"0x([0-9a-fA-F]+)\" ]] && printf '%d' "0x${BASH_REMATCH[1]}"
}

# plan_chain: sets CHAIN_ID (empty when unknown), and SEED when the contract is to be deployed by us.
plan_chain() {
    SEED='' CHAIN_ID=$DEVELOPMENT_CHAIN
    if ! given RPC_URL; then
        # What is there already needs no look.
        runs anvil && [ -n "$(remembered LOANVERSE_CONTRACT_ADDRESS)" ] && [ ! -e "$STACK_DIR/anvil/seeding" ] || SEED=yes
        return 0
    fi
    local urls
    urls=$(given_value RPC_URL)
    if ! CHAIN_ID=$(chain_id_of "${urls%%,*}"); then
        warn "RPC_URL ($(printed_url "${urls%%,*}")) does not answer: no contract is deployed; run up again when it does"
    elif [ "$CHAIN_ID" = "$DEVELOPMENT_CHAIN" ] && ! given LOANVERSE_CONTRACT_ADDRESS; then
        SEED=yes
    fi
}

# settle_contract URL: deploys and seeds where planned; sets CONTRACT (empty: none).
settle_contract() {
    CONTRACT=''
    [ -z "$SEED" ] || seed_chain "$1"
    if given LOANVERSE_CONTRACT_ADDRESS; then
        CONTRACT=$LOANVERSE_CONTRACT_ADDRESS
    elif ! given RPC_URL; then
        CONTRACT=$(remembered LOANVERSE_CONTRACT_ADDRESS)
    elif [ -z "$SEED" ]; then
        [ -z "$CHAIN_ID" ] || say "chain $CHAIN_ID is no development chain: set LOANVERSE_CONTRACT_ADDRESS to read a contract there"
    fi
}

# seed_chain URL: puts the development contract and its loans there, once; running it again changes nothing.
# Sets CONTRACT, and remembers that of the private chain.
seed_chain() {
    local log=$LOG_DIR/devchain.log mark=$STACK_DIR/anvil/seeding
    step 'the development contract and its loans'
    given RPC_URL || : >"$mark"
    if ! "$TARGET/devchain" --rpc "$1" >"$log" 2>&1; then
        tail_of "$log"
        fail 'the development contract was not deployed' \
            'see the log above; ./scripts/up begins with a new chain (one named by RPC_URL: start it afresh yourself)'
    fi
    CONTRACT=$(grep -oE '"contract":"0x[0-9a-fA-F]{40}"' "$log" | tail -n 1 | cut -d '"' -f 4) || true
    [ -n "$CONTRACT" ] || fail 'devchain did not say where the contract is' "read $(shown_path "$log")"
    say "contract $CONTRACT on chain $CHAIN_ID"
    given RPC_URL || {
        remember LOANVERSE_CONTRACT_ADDRESS "$CONTRACT"
        rm -f "$mark"
    }
}

# liquidator_key: the published key, on the development chain alone.
liquidator_key() { [ "$CHAIN_ID" != "$DEVELOPMENT_CHAIN" ] || printf '%s' "$PUBLISHED_LIQUIDATOR_KEY"; }
