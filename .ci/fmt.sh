#!/usr/bin/env bash
# fmt.sh: fails, naming them, if Go files are not formatted.
set -euo pipefail

cd "$(dirname "$0")/.."
mapfile -d '' -t files < <(find . -name '*.go' -not -path './.vitrine/*' -print0)
unformatted=$(gofmt -l "${files[@]}")
if [ -n "$unformatted" ]; then
	printf 'not formatted (make fmt does it):\n%s\n' "$unformatted" >&2
	exit 1
fi
