#!/usr/bin/env bash
# alive.sh LABEL COMMAND [ARGUMENT...]: runs a command that may be quiet for long and says every 15 seconds that it is still at it.
set -euo pipefail

label=$1
shift

# Reading from a pipe that nobody writes to is a sleep without a process, which would outlive us and hold our output open.
beat() {
	local nobody
	exec {nobody}<> <(:)
	while ! read -r -t 15 -u "$nobody" && kill -0 $$ 2>/dev/null; do
		echo "   ... $label (${SECONDS}s)" >&2
	done
}

beat &
heart=$!
still() {
	kill "$heart" 2>/dev/null || true
	wait "$heart" 2>/dev/null || true
}
trap still EXIT

"$@"
