#!/usr/bin/env bash
# references.sh: updates the reference data of tests with other implementations. Needs cargo and npm. Run it when the test
# images change.
set -euo pipefail

cd "$(dirname "$0")/.."
for tool in cargo npm node; do
	command -v "$tool" >/dev/null || { echo "references: $tool is not installed" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go test ./pkg/foundation/ssimulacra2 -run '^TestScore$/^reference_implementation$' -write "$work/pairs" -count 1
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$work/cargo}" cargo run --locked --release --quiet \
	--manifest-path pkg/foundation/ssimulacra2/testdata/reference/Cargo.toml -- "$work/pairs" >"$work/ssimulacra2"
mv "$work/ssimulacra2" pkg/foundation/ssimulacra2/testdata/reference.txt

mkdir "$work/small"
go test ./pkg/foundation/thumbhash -run '^TestHash$/^reference_implementation$' -write "$work/small" -count 1
npm install --silent --prefix "$work" thumbhash@0.1.1
cp pkg/foundation/thumbhash/testdata/reference.mjs "$work"
node "$work/reference.mjs" "$work/small" >"$work/thumbhash"
mv "$work/thumbhash" pkg/foundation/thumbhash/testdata/reference.txt
