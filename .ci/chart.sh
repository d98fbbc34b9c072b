#!/usr/bin/env bash
# chart.sh WHAT: one step of checking the chart, or of writing what is generated from it.
#   lint        helm lint and helm template with each values file; renders go to bin/chart
#   schemas     every rendered object against the published schemas of the oldest and the newest Kubernetes
#   unit        helm-unittest's suites, charts/vitrine/tests/*_test.yaml
#   policies    Go tests over all renders: NetworkPolicies, Pod Security, values that must be refused, alerts and their runbooks
#   alerts      promtool's checks and tests of the alerts
#   golden      the renders of values-dev and values-production, and of ci's operators and external, are those of
#               charts/vitrine/tests/golden; golden-update writes them
#   docs        charts/vitrine/README.md is what helm-docs writes; docs-update writes it
set -euo pipefail

cd "$(dirname "$0")/.."
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin
chart=charts/vitrine
renders=bin/chart
# Passwords that are given are not made at random. The flags change nothing where no dev server is enabled.
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
	for values in $(all); do
		"$bin/helm" lint --strict --quiet "$chart" --values "$values" >"$renders/lint" || { cat "$renders/lint"; echo "with $values"; return 1; }
		render "$values" >"$renders/$(basename "$values")"
	done
	rm "$renders/lint"
	# k8s/ has values that go over those of development.
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
			-schema-location '.ci/schemas/crds/{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json' "$renders"/*.yaml
	done
}

golden() { # [update]
	local values which status=0
	for values in "$chart"/values-{dev,production}.yaml "$chart"/ci/{operators,external}-values.yaml; do
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
	[ $status = 0 ] || echo "The chart renders something else than before. If that is meant, make chart-golden writes it down." >&2
	return $status
}

docs=(--log-level warning --chart-search-root charts --sort-values-order file)

docs() { # [update]
	if [ "${1:-}" = update ]; then
		"$bin/helm-docs" "${docs[@]}"
	elif ! "$bin/helm-docs" "${docs[@]}" --dry-run | diff -u "$chart/README.md" -; then
		echo "$chart/README.md is not what the values say. make chart-docs writes it again." >&2
		return 1
	fi
	if grep -E '^\|.*\|  \|$' "$chart/README.md"; then
		echo "these values have no description: a comment that begins with # --" >&2
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
