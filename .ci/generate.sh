#!/usr/bin/env bash
# generate.sh: writes every file that is made from another one. verify.sh holds them to it.
set -euo pipefail

cd "$(dirname "$0")/.."
go generate ./...
go test ./pkg/postgres -count=1 -run Schema -update >/dev/null # docs/schema.sql, from the migrations
