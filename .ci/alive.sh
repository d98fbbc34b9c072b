#!/usr/bin/env bash
# alive.sh LABEL COMMAND [ARGUMENT...]: runs a command that may be quiet for long and says every 15 seconds that it is still at it.
set -euo pipefail

label=$1
shift

beat() {
	while sleep 15 && kill -0 "$1" 2>/dev/null; do
		echo "   ... $label ($((SECONDS))s)" >&2
	done
}

beat $$ &
heart=$!
# The sleep is a child of the heart and would hold our output open for whoever reads it to its end.
trap 'pkill -P "$heart" 2>/dev/null || true; kill "$heart" 2>/dev/null || true' EXIT

"$@"
