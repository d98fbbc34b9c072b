#!/usr/bin/env bash
# chart-tools.sh: builds the chart's tools into the cache unless they exist. .ci/tools/go.mod pins their versions. One
# module for all compiles their shared packages once.
set -euo pipefail

cd "$(dirname "$0")/tools"
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin
export GOFLAGS='' CGO_ENABLED=0

packages=(helm.sh/helm/v3/cmd/helm github.com/helm-unittest/helm-unittest/cmd/helm-unittest
	github.com/yannh/kubeconform/cmd/kubeconform github.com/norwoodj/helm-docs/cmd/helm-docs)
missing=()
for package in "${packages[@]}"; do
	module=${package%/cmd/*} name=${package##*/}
	version=$(awk -v module="$module" '$1 == module { print $2 }' go.mod)
	if ! go version -m "$bin/$name" 2>/dev/null | grep -qF "$module	$version	"; then
		missing+=("$package")
	fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "building ${missing[*]##*/} into $bin (once; minutes on a small machine)"
mkdir -p "$bin"
# Helm's default Kubernetes version is set by the linker; without it, it is 1.20.
kubernetes=$(awk '$1 == "k8s.io/client-go" { split($2, v, "."); print v[2] }' go.mod)
helm=helm.sh/helm/v3
flags="-s -w -X $helm/internal/version.version=$(awk -v helm=$helm '$1 == helm { print $2 }' go.mod)"
for package in pkg/chartutil pkg/lint/rules; do
	flags+=" -X $helm/$package.k8sVersionMajor=1 -X $helm/$package.k8sVersionMinor=$kubernetes"
done
# Build into a temporary directory first, so that interrupted or concurrent builds leave no incomplete program.
fresh=$(mktemp -d "$bin/.building.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
../alive.sh "building the chart's tools" go build -trimpath -ldflags "$flags" -o "$fresh/" "${missing[@]}"
mv "$fresh"/* "$bin/"
