#!/usr/bin/env bash
# chart.sh STEP: runs one check of the chart, or updates a generated file.
#   lint        helm lint of both charts, and helm template with each values file; writes the renders to bin/chart
#   schemas     checks rendered objects and the sample pipeline with the schemas of the oldest and the newest supported Kubernetes
#   unit        helm-unittest's suites, charts/vitrine/tests/*_test.yaml
#   policies    Go tests of all renders: NetworkPolicies, Pod Security, rejected values, alerts and their runbooks
#   alerts      checks and tests the alerts with promtool
#   golden      compares the renders of values-dev, values-production and ci's operators, external and resource with
#               charts/vitrine/tests/golden; golden-update updates them
#   docs        compares charts/vitrine/README.md with helm-docs' output; docs-update updates it
set -euo pipefail

cd "$(dirname "$0")/.."
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin
chart=charts/vitrine
renders=bin/chart
# Fixed passwords instead of random ones. The flags have no effect without dev servers.
fixed=(--set "postgres.dev.password=not-a-secret,redis.dev.password=not-a-secret,s3.dev.password=not-a-secret")

render() { # VALUES-FILE [FLAG...]
	local values=$1
	shift
	"$bin/helm" template shop "$chart" --namespace catalogue --values "$values" "${fixed[@]}" "$@"
}

all() { echo "$chart"/values-{dev,production}.yaml "$chart"/ci/*.yaml; }

lint() {
	rm -rf "$renders"
	mkdir -p "$renders"
	local values
	"$bin/helm" lint --strict --quiet charts/vitrine-crds
	for values in $(all); do
		"$bin/helm" lint --strict --quiet "$chart" --values "$values" >"$renders/lint" || { cat "$renders/lint"; echo "with $values"; return 1; }
		render "$values" >"$renders/$(basename "$values")"
	done
	rm "$renders/lint"
	# The values in k8s/ are applied on top of values-dev.
	for values in k8s/values-*.yaml; do
		render "$chart/values-dev.yaml" --values "$values" >"$renders/dev-$(basename "$values")"
	done
}

schemas() {
	local version
	for version in .ci/schemas/v*-standalone-strict; do
		version=${version##*/v}
		"$bin/kubeconform" -strict -kubernetes-version "${version%-standalone-strict}" \
			-schema-location '.ci/schemas/{{ .NormalizedKubernetesVersion }}-standalone{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json' \
			-schema-location '.ci/schemas/crds/{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json' \
			"$renders"/*.yaml k8s/imagepipeline.yaml
	done
}

golden() { # [update]
	local values which status=0
	for values in "$chart"/values-{dev,production}.yaml "$chart"/ci/{operators,external,resource}-values.yaml; do
		which=$(basename "$values" .yaml)
		which=${which#values-}
		which=${which%-values}
		if [ "${1:-}" = update ]; then
			mkdir -p "$chart/tests/golden"
			render "$values" >"$chart/tests/golden/$which.yaml"
		else
			render "$values" | diff -u "$chart/tests/golden/$which.yaml" - || status=1
		fi
	done
	[ $status = 0 ] || echo "The renders of the chart differ from the golden files. make chart-golden updates the golden files." >&2
	return $status
}

docs=(--log-level warning --chart-search-root "$chart" --sort-values-order file)

docs() { # [update]
	if [ "${1:-}" = update ]; then
		"$bin/helm-docs" "${docs[@]}"
	elif ! "$bin/helm-docs" "${docs[@]}" --dry-run | diff -u "$chart/README.md" -; then
		echo "$chart/README.md is out of date. make chart-docs updates it." >&2
		return 1
	fi
	if grep -E '^\|.*\|  \|$' "$chart/README.md"; then
		echo "these values lack a description, a comment that starts with # --" >&2
		return 1
	fi
}

case ${1:-} in
lint | schemas) "$1" ;;
unit) "$bin/helm-unittest" --strict "$chart" ;;
policies) CGO_ENABLED=0 HELM=$bin/helm go test -C .ci/tools -trimpath -vet=all ./... ;;
alerts)
	"$bin/promtool" check rules --lint=all --lint-fatal "$chart/files/alerts.yaml"
	"$bin/promtool" test rules "$chart"/tests/*.promtool.yaml
	;;
golden | golden-update) golden "${1#golden-}" ;;
docs | docs-update) docs "${1#docs-}" ;;
*)
	sed -n '2,/^set/{/^#/p}' "$0" >&2
	exit 2
	;;
esac
