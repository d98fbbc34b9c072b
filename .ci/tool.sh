#!/usr/bin/env bash
# tool.sh NAME PACKAGE MODULE VERSION: builds a Go program into the cache unless it has this version.
# TOOL_FLAGS: flags for go build.
set -euo pipefail

name=$1 package=$2 module=$3 version=$4
bin=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine/bin

if [ -x "$bin/$name" ] && go version -m "$bin/$name" 2>/dev/null | grep -qF "$module	$version	"; then
	exit 0
fi
echo "building $name $version into $bin (once; minutes on a small machine)"
mkdir -p "$bin"
# Build into a temporary directory first, so that interrupted or concurrent builds leave no incomplete program.
fresh=$(mktemp -d "$bin/.building.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
GOBIN=$fresh GOFLAGS=${TOOL_FLAGS:-} CGO_ENABLED=0 "$(dirname "$0")/alive.sh" "building $name" go install "$package@$version"
mv "$fresh/$(basename "${package%/v[0-9]*}")" "$bin/$name"
