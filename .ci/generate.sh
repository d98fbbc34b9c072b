#!/usr/bin/env bash
# generate.sh: writes all generated files. verify.sh checks that they are up to date.
set -euo pipefail

cd "$(dirname "$0")/.."
go generate ./...
go test ./pkg/adapter/postgres -count=1 -run Schema -update >/dev/null # docs/schema.sql, from the migrations

# docs/configuration.md and .env.example, from the programs' --help-markdown
tables=$(mktemp -d)
trap 'rm -rf "$tables"' EXIT
CGO_ENABLED=0 go build -o "$tables/" ./cmd/api ./cmd/worker ./cmd/vitrine
"$tables/api" --help-markdown >"$tables/api.md"
"$tables/worker" --help-markdown >"$tables/worker.md"
"$tables/vitrine" setup --help-markdown >"$tables/setup.md"
CGO_ENABLED=0 go build -C .ci/tools -o "$tables/configdoc" ./configdoc
"$tables/configdoc" -page docs/configuration.md -example .env.example "$tables"/{api,worker,setup}.md
