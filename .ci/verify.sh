#!/usr/bin/env bash
# verify.sh: fails if generate.sh changes a file.
set -euo pipefail

cd "$(dirname "$0")/.."
state() { git ls-files -z --cached --others --exclude-standard | sort -zu | xargs -0 sha256sum 2>/dev/null || true; }
before=$(state)
.ci/generate.sh
after=$(state)
if [ "$before" != "$after" ]; then
	echo "these generated files were out of date (they are updated now):" >&2
	diff <(echo "$before") <(echo "$after") | awk '/^[<>]/ { print "  " $3 }' | sort -u >&2 || true
	exit 1
fi
