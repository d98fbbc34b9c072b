#!/usr/bin/env bash
# images.sh build|push|save|standin|e2e: builds images from their Dockerfiles with docker if its daemon is running, else with
# buildah or podman. The targets of make set TAG, VERSION, REGISTRY and OUT.
#
#   SSL_CERT_FILE   bundle of CA certificates for the build, behind a TLS-inspecting proxy
#   PLATFORM        target platform, such as linux/arm64; default: this machine's
#   ENGINE          docker, buildah or podman; default: the first that works
set -euo pipefail

cd "$(dirname "$0")/.."
here=$PWD/.ci
TAG=${TAG:-dev}
VERSION=${VERSION:-unknown}
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)

# Builders ignore the content of mounts in their cache. So a modified tree needs its own version, or the build reuses the
# programs of an earlier tree.
if [[ $VERSION == *-dirty ]]; then
	index=$(mktemp -u)
	VERSION+=.$(GIT_INDEX_FILE=$index git add --all && GIT_INDEX_FILE=$index git write-tree | cut -c1-8)
	rm -f "$index"
fi

# NAME MAX: the maximum compressed size in MB. The standin is the worker whose codec sleeps.
images=("vitrine-api 40" "vitrine-controller 25" "vitrine-worker 150")

find_engine() {
	local engine
	for engine in docker buildah podman; do
		# docker needs its daemon
		if command -v "$engine" >/dev/null 2>&1 && { [ "$engine" != docker ] || docker info >/dev/null 2>&1; }; then
			echo "$engine"
			return
		fi
	done
	echo "Install docker (and start its daemon), buildah or podman to build images." >&2
	exit 1
}
engine=${ENGINE:-$(find_engine)}

# docker and Kubernetes resolve a name without a registry to docker.io; buildah would use localhost.
reference() { # NAME
	case $engine in
	docker) echo "$1:$TAG" ;;
	*) echo "docker.io/library/$1:$TAG" ;;
	esac
}

build() { # NAME DOCKERFILE [FLAG...]
	local name=$1 file=$2 flags command
	shift 2
	flags=(--file "$file" --tag "$(reference "$name")" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" "$@")
	# Docker tells a build what it is for; buildah only if it is asked for a platform.
	if [ "$engine" != docker ]; then PLATFORM=${PLATFORM:-linux/$(go env GOARCH)}; fi
	if [ -n "${PLATFORM:-}" ]; then flags+=(--platform "$PLATFORM"); fi
	if [ -n "${SSL_CERT_FILE:-}" ]; then flags+=(--secret "id=ca-certificates,src=$SSL_CERT_FILE"); fi
	case $engine in
	docker) command=(env DOCKER_BUILDKIT=1 docker build --quiet) ;;
	*) command=("$engine" build --quiet --layers) ;;
	esac
	"$here/alive.sh" "building $name" "${command[@]}" "${flags[@]}" . >/dev/null
}

archive() { # NAME: writes a tar file for docker, kind and containerd to stdout
	local file
	case $engine in
	docker) docker save "$(reference "$1")" ;;
	*)
		file=$(mktemp -u) # the engine creates it
		"$engine" push --quiet "$(reference "$1")" "docker-archive:$file:$1:$TAG" >/dev/null
		cat "$file"
		rm -f "$file"
		;;
	esac
}

# Registries store compressed layers, so this is the size that a node downloads.
measure() { # NAME MAX
	local bytes
	bytes=$(archive "$1" | gzip -6 | wc -c)
	printf '%-24s %6.1f MB compressed (at most %d)\n' "$1:$TAG" "$(awk "BEGIN {print $bytes / 1e6}")" "$2"
	[ "$bytes" -le $(($2 * 1000000)) ]
}

build_all() {
	local image name max
	echo "building with $engine, version $VERSION (the first build takes minutes)"
	build vitrine-api Dockerfile.api
	build vitrine-controller Dockerfile.controller
	build vitrine-worker Dockerfile.worker
	for image in "${images[@]}"; do
		read -r name max <<<"$image"
		measure "$name" "$max" || { echo "$name is too large" >&2 && exit 1; }
	done
}

push_all() {
	local image name target digest
	if [ -z "${REGISTRY:-}" ]; then
		echo "usage: make images-push REGISTRY=registry.example/team TAG=$TAG" >&2
		exit 2
	fi
	for image in "${images[@]}"; do
		read -r name _ <<<"$image"
		target=${REGISTRY%/}/$name:$TAG
		case $engine in
		docker)
			docker tag "$(reference "$name")" "$target"
			docker push --quiet "$target" >/dev/null
			digest=$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$target" | grep -F "${REGISTRY%/}/$name@" | head -n 1)
			digest=${digest#*@}
			;;
		*)
			digest=$(mktemp)
			"$engine" push --quiet --digestfile "$digest" "$(reference "$name")" "docker://$target" >/dev/null
			digest=$(cat "$digest")
			;;
		esac
		echo "pushed $target@$digest"
	done
}

save_all() {
	local image name
	mkdir -p "$OUT"
	for image in "${images[@]}"; do
		read -r name _ <<<"$image"
		archive "$name" >"$OUT/$name-$TAG.tar"
		echo "$OUT/$name-$TAG.tar"
	done
}

case ${1:-} in
build) build_all ;;
push) push_all ;;
save) save_all ;;
standin) build "vitrine-worker-standin" Dockerfile.worker --target standin ;;
e2e) build vitrine-e2e pkg/test/e2e/Dockerfile ;;
*)
	echo "usage: images.sh build|push|save|standin|e2e" >&2
	exit 2
	;;
esac
