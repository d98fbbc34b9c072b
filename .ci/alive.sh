#!/usr/bin/env bash
# alive.sh LABEL COMMAND [ARGUMENT...]: runs a command and prints a progress line every 15 seconds, because the command may
# print nothing for minutes.
set -euo pipefail

label=$1
shift

# read -t on a pipe without a writer sleeps without a child process. A sleep process would outlive this script and keep its
# output open.
heartbeat() {
	local pipe
	exec {pipe}<> <(:)
	while ! read -r -t 15 -u "$pipe" && kill -0 $$ 2>/dev/null; do
		echo "   ... $label (${SECONDS}s)" >&2
	done
}

heartbeat &
heartbeat_pid=$!
stop_heartbeat() {
	kill "$heartbeat_pid" 2>/dev/null || true
	wait "$heartbeat_pid" 2>/dev/null || true
}
trap stop_heartbeat EXIT

"$@"
