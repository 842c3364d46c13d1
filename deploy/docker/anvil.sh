#!/bin/sh
# A new chain begins two hours ago, since seeding it moves its clock two hours ahead (deploy/anvil/seed.md). A chain
# that was stopped goes on at the present time; told a time again, anvil would go back to it.
#
# The chain is saved now and then, since a killed anvil saves nothing. Quiet: it would log every call.
set -eu
chain=/chain/state.json
[ -s "$chain" ] || set -- --timestamp "$(($(date +%s) - 7200))" "$@"
exec /opt/anvil/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil \
    --quiet --host 0.0.0.0 --port 8545 --state "$chain" --state-interval 5 "$@"
