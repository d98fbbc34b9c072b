#!/usr/bin/env bash
# fmt.sh: lists Go files that are not formatted, and fails if there are any.
set -euo pipefail

cd "$(dirname "$0")/.."
mapfile -d '' -t files < <(find . -name '*.go' -not -path './.vitrine/*' -print0)
unformatted=$(gofmt -l "${files[@]}")
if [ -n "$unformatted" ]; then
	printf 'not formatted (make fmt formats them):\n%s\n' "$unformatted" >&2
	exit 1
fi
