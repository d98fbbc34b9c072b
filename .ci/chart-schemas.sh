#!/usr/bin/env bash
# chart-schemas.sh: updates .ci/schemas from the Go modules and the Maven artifact of Kubernetes and the operators. It is
# needed only for new versions or new kinds. The files are committed, so that checks need no download of 100 MB.
set -euo pipefail

cd "$(dirname "$0")/.."
kubernetes=(v1.29.15 v1.37.2) # the oldest that Chart.yaml allows, and the newest
keda=v2.21.0
prometheus_operator=v0.92.0
cloudnative_pg=v1.30.0
kinds="v1 ConfigMap, v1 Pod, v1 Secret, v1 Service, v1 ServiceAccount, apps/v1 Deployment, apps/v1 StatefulSet, batch/v1 Job,
	rbac.authorization.k8s.io/v1 Role, rbac.authorization.k8s.io/v1 RoleBinding,
	autoscaling/v2 HorizontalPodAutoscaler, policy/v1 PodDisruptionBudget, networking.k8s.io/v1 Ingress, networking.k8s.io/v1 NetworkPolicy"

module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; } # MODULE@VERSION: its directory
work=$(mktemp -d)
schemas=$work/schemas
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -C .ci/tools -o "$schemas" ./schemas

rm -rf .ci/schemas/crds .ci/schemas/v*
for version in "${kubernetes[@]}"; do
	dir=$(module "k8s.io/kubernetes@$version")
	"$schemas" -out ".ci/schemas/$version-standalone-strict" -kinds "$(tr '\n' ' ' <<<"$kinds")" "$dir/api/openapi-spec/swagger.json"
done
dir=$(module "github.com/kedacore/keda/v2@$keda")
"$schemas" -crd -out .ci/schemas/crds "$dir"/config/crd/bases/keda.sh_{scaledobjects,triggerauthentications}.yaml
dir=$(module "github.com/prometheus-operator/prometheus-operator@$prometheus_operator")
"$schemas" -crd -out .ci/schemas/crds \
	"$dir"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules,servicemonitors}.yaml
dir=$(module "github.com/cloudnative-pg/cloudnative-pg@$cloudnative_pg")
"$schemas" -crd -out .ci/schemas/crds "$dir"/config/crd/bases/postgresql.cnpg.io_{clusters,scheduledbackups}.yaml

# Strimzi publishes Java classes, from which Jackson derives the schemas.
mvn -q -B -f .ci/strimzi/pom.xml dependency:copy-dependencies -DoutputDirectory="$work/lib" </dev/null
mkdir "$work/classes" .ci/schemas/crds/kafka.strimzi.io
javac -nowarn -cp "$work/lib/*" -d "$work/classes" $(find .ci/strimzi -name '*.java')
java -cp "$work/classes:$work/lib/*" Schemas .ci/schemas/crds/kafka.strimzi.io 2>/dev/null
# Vitrine's own, which .ci/generate.sh writes, too.
"$schemas" -crd -out .ci/schemas/crds charts/vitrine-crds/templates/vitrine.io_*.yaml

strimzi=$(sed -n 's/.*<version>\([0-9.]*\.[0-9]*\)<.*/\1/p' .ci/strimzi/pom.xml)

cat >.ci/schemas/README.md <<EOF
# Schemas for checks of rendered charts

Written by \`make chart-schemas\`; do not edit.

| schemas | source |
|---|---|
| Kubernetes' kinds, ${kubernetes[*]} | \`api/openapi-spec/swagger.json\` of the module k8s.io/kubernetes |
| KEDA's, $keda | \`config/crd/bases\` of the module github.com/kedacore/keda/v2 |
| Prometheus operator's, $prometheus_operator | \`example/prometheus-operator-crd\` of the module github.com/prometheus-operator/prometheus-operator |
| CloudNativePG's, $cloudnative_pg | \`config/crd/bases\` of the module github.com/cloudnative-pg/cloudnative-pg |
| Vitrine's | \`charts/vitrine-crds/templates\` |
| Strimzi's, v1 of $strimzi | the classes of the Maven artifact io.strimzi:api, read by \`.ci/strimzi\` |

All are under the Apache License 2.0. Descriptions are removed, and unknown fields are errors.
EOF
