#!/usr/bin/env bash
# step.sh LABEL COMMAND [ARGUMENT...]: runs a step of a check and says how it went and how long it took.
set -euo pipefail

label=$1
shift
if ! "$(dirname "$0")/alive.sh" "$label" "$@"; then
	echo "FAIL  $label (${SECONDS}s)"
	exit 1
fi
echo "ok    $label (${SECONDS}s)"
