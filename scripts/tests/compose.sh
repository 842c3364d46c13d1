#!/usr/bin/env bash
# The compose file and the images say what the rest of the repository says, and compose accepts the file. Starts nothing.
#
#   scripts/tests/compose.sh    needs jq; what needs docker's compose plugin is skipped without it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

check() { printf '    holds: %s\n' "$*"; }

broken() {
    printf 'does not hold: %s\n' "$*" >&2
    exit 1
}

# same WHAT ONE OTHER
same() {
    if [ -z "$2" ] || [ "$2" != "$3" ]; then
        broken "$1: \"$2\" and \"$3\""
    fi
    check "$1"
}

# setting NAME: its value in the compose file.
setting() { sed -nE "s/^ *$1: \"?([^\"]*)\"?$/\1/p" docker-compose.yml; }

same 'images are built by the pinned Rust release' \
    "$(sed -nE 's/^channel = "(.*)"$/\1/p' rust-toolchain.toml)" \
    "$(sed -nE 's/^ARG BUILDER=rust:([0-9.]+)-.*$/\1/p' deploy/docker/services.Dockerfile)"
same 'the contract is where seeding puts it' \
    "$(sed -nE 's/^\| 7 \| Loanverse \|.*(0x[0-9a-fA-F]{40}). \|$/\1/p' deploy/anvil/seed.md)" \
    "$(setting LOANVERSE_CONTRACT_ADDRESS)"
same 'the liquidator has the published key, as with scripts/up' \
    "$(sed -n 's/^PUBLISHED_LIQUIDATOR_KEY=//p' scripts/lib/contract.sh)" \
    "$(setting LIQUIDATOR_PRIVATE_KEY)"

if ! docker compose version >/dev/null 2>&1; then
    echo '    skipped: docker compose config, since docker has no compose plugin here'
    exit 0
fi

# A developer's own settings are no part of this.
unset PORT ML_PORT ADMIN_TOKEN
config=$(docker compose --file docker-compose.yml --env-file /dev/null config --format json) ||
    broken 'docker compose accepts docker-compose.yml'
check 'docker compose accepts docker-compose.yml'

# none WHAT JQ: the filter lists the services for which it does not hold.
none() {
    local guilty
    guilty=$(jq -r "[.services | to_entries[] | $2 | .key] | join(\", \")" <<<"$config")
    [ -z "$guilty" ] || broken "$1: $guilty"
    check "$1"
}

none 'ports are published on loopback only' 'select(any(.value.ports[]?; .host_ip != "127.0.0.1"))'
none 'servers have no way out' \
    'select(.key | IN("redis", "postgres", "anvil", "devchain")) | select(.value.networks | keys != ["inside"])'
none 'every root file system is read-only, without capabilities' \
    'select((.value.read_only and .value.cap_drop == ["ALL"]) | not)'
none 'memory, processors and processes are limited' \
    'select((.value.mem_limit and .value.cpus and .value.pids_limit) | not)'
