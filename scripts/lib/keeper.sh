#!/usr/bin/env bash
# The parent of one service. It outlives `up`, so that `down` can tell how the service ended.
#
#   RUN_DIR=… keeper.sh NAME COMMAND…    writes run/NAME.process at the start, run/NAME.exit at the end
set -uo pipefail
# shellcheck source=scripts/lib/processes.sh
. "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

name=$1
shift
# For us, not for the service.
declare +x RUN_DIR
# Signals are meant for the service; whoever signals the whole session must not lose the exit code. Caught, not
# ignored: the service would inherit that.
trap 'interrupted=yes' HUP INT TERM
(
    record_process "$name" "$BASHPID"
    exec env --default-signal=INT,QUIT -- "$@"
) &
while :; do
    interrupted=''
    wait $!
    code=$?
    # A wait that a signal interrupts tells nothing about the service.
    [ -n "$interrupted" ] || break
done
printf '%s\n' "$code" >"$RUN_DIR/$name.exit"
