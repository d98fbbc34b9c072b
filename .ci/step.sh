#!/usr/bin/env bash
# step.sh LABEL COMMAND [ARGUMENT...]: runs a step of a check and prints its result and duration.
set -euo pipefail

label=$1
shift
if ! "$(dirname "$0")/alive.sh" "$label" "$@"; then
	echo "FAIL  $label (${SECONDS}s)"
	exit 1
fi
echo "ok    $label (${SECONDS}s)"
