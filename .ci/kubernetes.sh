#!/usr/bin/env bash
# kubernetes.sh: builds kube-apiserver and, unless etcd is installed, etcd into the cache, for tests of the controller. If
# KUBEBUILDER_ASSETS names a directory, the tests use the programs there, and nothing is built.
#
# go install cannot build them, because their modules replace others by directories of their own repositories. They are built
# in modules that require them.
set -euo pipefail

kubernetes=1.34.3
etcd=v3.7.3
here=$(cd "$(dirname "$0")" && pwd)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin

[ -z "${KUBEBUILDER_ASSETS:-}" ] || exit 0
have_etcd() { command -v etcd >/dev/null 2>&1 || [ -x "$bin/etcd" ]; }
have_api() { [ "$("$bin/kube-apiserver" --version 2>/dev/null)" = "Kubernetes v$kubernetes" ]; }
if have_etcd && have_api; then exit 0; fi

mkdir -p "$bin"
# Build into a temporary directory first, so that interrupted or concurrent builds leave no incomplete program.
fresh=$(mktemp -d "$bin/.building.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
export GOFLAGS='' CGO_ENABLED=0
quietly() { "$@" >"$fresh/log" 2>&1 || { cat "$fresh/log" >&2; return 1; }; }

if ! have_etcd; then
	echo "building etcd $etcd into $bin (once; minutes on a small machine)"
	mkdir "$fresh/etcd"
	cd "$fresh/etcd"
	quietly go mod init vitrine.io/etcd
	quietly go get "go.etcd.io/etcd/server/v3@$etcd"
	"$here/alive.sh" "building etcd" go build -ldflags "-s -w" -o etcd go.etcd.io/etcd/server/v3
	mv etcd "$bin/"
fi
if ! have_api; then
	echo "building kube-apiserver $kubernetes into $bin (once; many minutes on a small machine)"
	mkdir "$fresh/kubernetes"
	cd "$fresh/kubernetes"
	source=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	{
		printf 'module vitrine.io/kube-apiserver\n\ngo 1.24\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
		awk -v v="v0.${kubernetes#1.}" '/=> \.\/staging/ { print "\t" $1 " => " $1 " " v }' "$source/go.mod"
		printf ')\n'
	} >go.mod
	cp "$source"/cmd/kube-apiserver/*.go .
	rm -f ./*_test.go
	quietly go mod tidy
	version=k8s.io/component-base/version
	"$here/alive.sh" "building kube-apiserver" go build \
		-ldflags "-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=34" -o kube-apiserver .
	mv kube-apiserver "$bin/"
fi
