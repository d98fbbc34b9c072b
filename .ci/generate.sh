#!/usr/bin/env bash
# generate.sh: writes every file that is made from another one. verify.sh holds them to it.
set -euo pipefail

cd "$(dirname "$0")/.."
go generate ./...
go test ./pkg/adapter/postgres -count=1 -run Schema -update >/dev/null # docs/schema.sql, from the migrations

# docs/configuration.md and .env.example, from what the programs say of themselves.
tables=$(mktemp -d)
trap 'rm -rf "$tables"' EXIT
CGO_ENABLED=0 go build -o "$tables/" ./cmd/api ./cmd/worker ./cmd/vitrine
"$tables/api" --help-markdown >"$tables/api.md"
"$tables/worker" --help-markdown >"$tables/worker.md"
"$tables/vitrine" setup --help-markdown >"$tables/setup.md"
CGO_ENABLED=0 go build -C .ci/tools -o "$tables/configdoc" ./configdoc
"$tables/configdoc" -page docs/configuration.md -example .env.example "$tables"/{api,worker,setup}.md
