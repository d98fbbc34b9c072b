#!/usr/bin/env bash
# kubernetes.sh: builds kube-apiserver and, unless etcd is installed, etcd into the cache, for tests of the controller. If
# KUBEBUILDER_ASSETS names a directory, the tests use the programs there, and nothing is built.
set -euo pipefail

kubernetes=1.34.3
etcd=v3.7.3
here=$(cd "$(dirname "$0")" && pwd)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin

[ -z "${KUBEBUILDER_ASSETS:-}" ] || exit 0
command -v etcd >/dev/null 2>&1 || "$here/tool.sh" etcd go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 "$etcd"
if [ -x "$bin/kube-apiserver" ] && [ "$("$bin/kube-apiserver" --version)" = "Kubernetes v$kubernetes" ]; then
	exit 0
fi
echo "building kube-apiserver $kubernetes into $bin (once; many minutes on a small machine)"
mkdir -p "$bin"
fresh=$(mktemp -d "$bin/.building.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
export GOFLAGS='' CGO_ENABLED=0
# The program cannot be installed by its path: its module replaces others by directories of its own repository. This module
# replaces them by the published ones.
source=$(cd "$fresh" && go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
{
	printf 'module vitrine.io/kube-apiserver\n\ngo 1.24\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
	awk -v v="v0.${kubernetes#1.}" '/=> \.\/staging/ { print "\t" $1 " => " $1 " " v }' "$source/go.mod"
	printf ')\n'
} >"$fresh/go.mod"
cp "$source"/cmd/kube-apiserver/*.go "$fresh/"
rm -f "$fresh"/*_test.go
cd "$fresh"
go mod tidy >/dev/null 2>tidy.log || { cat tidy.log >&2; exit 1; }
version=k8s.io/component-base/version
"$here/alive.sh" "building kube-apiserver" go build \
	-ldflags "-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=34" -o kube-apiserver .
mv kube-apiserver "$bin/"
