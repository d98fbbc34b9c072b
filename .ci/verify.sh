#!/usr/bin/env bash
# verify.sh: fails if generating again changes a file.
set -euo pipefail

cd "$(dirname "$0")/.."
state() { git ls-files -z --cached --others --exclude-standard | sort -zu | xargs -0 sha256sum 2>/dev/null || true; }
before=$(state)
.ci/generate.sh
after=$(state)
if [ "$before" != "$after" ]; then
	echo "these are not what make generate writes (it has now written them):" >&2
	diff <(echo "$before") <(echo "$after") | awk '/^[<>]/ { print "  " $3 }' | sort -u >&2 || true
	exit 1
fi
