#!/usr/bin/env bash
# test.sh: runs all tests as children of one process that manages the servers. It builds the programs for coverage, runs go
# test with -race, merges the coverage of tests and programs, and prints the test runner's summary last. Called by make
# test.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
alive=$root/.ci/alive.sh
covered=./cmd/...,./pkg/...
out=$root/coverage

rm -rf "$out"
mkdir -p "$out/programs" "$out/bin"

echo "building the programs that tests run"
build=(go build -cover -covermode=atomic -coverpkg="$covered" -o "$out/bin/")
"$alive" "building programs" "${build[@]}" -race ./cmd/api ./cmd/worker ./cmd/controller
# Without -race: the codec, because its address space is limited and -race reserves terabytes, and vitrine, whose
# demonstration renders images, which -race slows down.
"$alive" "building the codec and vitrine" "${build[@]}" ./cmd/codec ./cmd/vitrine
go build -o "$out/bin/" ./pkg/test/codecstub
go build -o "$out/servers" ./pkg/test/withservers
go build -C .ci/tools -o "$out/cover" ./cover

export VITRINE_TEST_BIN_DIR=$out/bin

# Programs write their counters to GOCOVERDIR. go test sets it to a directory that it deletes, so -exec overrides it.
# TEST_FLAGS and TEST_PKGS are lists of words.
# shellcheck disable=SC2206
flags=(-race -timeout 20m -exec "env 'GOCOVERDIR=$out/programs'" -covermode=atomic -coverpkg="$covered" -coverprofile="$out/tests.out" ${TEST_FLAGS:-} ${TEST_PKGS:-./...})
status=0
"$alive" "testing" "$out/servers" -- "${GOTESTSUM:-gotestsum}" --no-color --format pkgname --hide-summary skipped \
	--jsonfile "$out/tests.json" -- "${flags[@]}" 2>&1 | tee -i "$out/tests.log" || status=$?

if [ "$status" = 0 ] && grep '"Action":"skip"' "$out/tests.json" | grep -oE '"Package":.*"Test":"[^"]*"' >"$out/skipped"; then
	echo "error: tests were skipped:"
	cat "$out/skipped"
	status=1
fi
if [ "$status" = 0 ]; then
	go tool covdata textfmt -i="$out/programs" -o="$out/programs.out"
	# Test harnesses and suites do not count: make chaos, make bench and make e2e run them.
	harness='^pkg/test/'
	"$out/cover" -without "$harness" -min "${COVER_MIN:-94}" -o "$out/all.out" coverage/tests.out coverage/programs.out || status=$?
fi
grep '^DONE ' "$out/tests.log" || true # repeat the summary as the last line
exit "$status"
