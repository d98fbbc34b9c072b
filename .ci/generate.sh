#!/usr/bin/env bash
# generate.sh: writes all generated files. verify.sh checks that they are up to date.
set -euo pipefail

cd "$(dirname "$0")/.."
go generate ./...

# charts/vitrine-crds, from the types and their markers. ssimulacra2 is a fraction: the resource needs no exact arithmetic.
.ci/tool.sh controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen sigs.k8s.io/controller-tools v0.23.0
"${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin/controller-gen" crd:allowDangerousTypes=true \
	paths=./pkg/adapter/controller output:crd:dir=charts/vitrine-crds/templates
CGO_ENABLED=0 go run -C .ci/tools ./schemas -crd -out "$PWD/.ci/schemas/crds" "$PWD"/charts/vitrine-crds/templates/vitrine.io_*.yaml

go test ./pkg/adapter/postgres -count=1 -run Schema -update >/dev/null # docs/schema.sql, from the migrations

# docs/configuration.md and .env.example, from the programs' --help-markdown
tables=$(mktemp -d)
trap 'rm -rf "$tables"' EXIT
CGO_ENABLED=0 go build -o "$tables/" ./cmd/api ./cmd/worker ./cmd/vitrine ./cmd/controller
"$tables/api" --help-markdown >"$tables/api.md"
"$tables/worker" --help-markdown >"$tables/worker.md"
"$tables/controller" --help-markdown >"$tables/controller.md"
"$tables/vitrine" setup --help-markdown >"$tables/setup.md"
CGO_ENABLED=0 go build -C .ci/tools -o "$tables/configdoc" ./configdoc
"$tables/configdoc" -page docs/configuration.md -example .env.example "$tables"/{api,worker,setup,controller}.md
