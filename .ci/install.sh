#!/usr/bin/env bash
# install.sh run|test|bench-images: installs the missing dependencies of that target of make, on Debian and Ubuntu. On other
# systems it prints what to install. If nothing is missing, it prints nothing and ends within milliseconds. It starts and
# enables no services.
set -euo pipefail

kafka=4.1.1
minio=v0.0.0-20260212201848-7aac2a2c5b7c # the last commit
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vitrine

have() { command -v "$1" >/dev/null 2>&1; }
any() { for path in "$@"; do [ -e "$path" ] && return 0; done; return 1; }
have_postgres() { have initdb || any /usr/lib/postgresql/*/bin/initdb; }
have_vips() { have pkg-config && pkg-config --exists vips; }
have_jemalloc() { any /usr/lib/*/libjemalloc.so.2 /usr/lib/libjemalloc.so.2 /usr/lib64/libjemalloc.so.2; }

# Kafka 4 needs Java 17. The release file of a JVM has its version, so java need not start.
have_java() {
	have java || return 1
	local release
	release=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")/release
	[ ! -e "$release" ] || ! grep -qE '^JAVA_VERSION="(1\.|[0-9]\.|[0-9]"|1[0-6][."])' "$release"
}

# Missing dependencies: package names for apt, descriptions for the user.
packages=() words=()
need() { # CHECK WORDS PACKAGE...
	local check=$1 word=$2
	shift 2
	if ! "$check"; then
		packages+=("$@") words+=("$word")
	fi
}
have_cc() { have cc || have gcc; }
have_pkgconfig() { have pkg-config; }
have_redis() { have redis-server; }
have_maven() { have mvn; }
have_wrk() { have wrk; }
have_node() { have node && have npm; }
have_photographs() { any /usr/share/backgrounds/gnome/*.webp && any /usr/share/backgrounds/mate; }

find_missing() {
	need have_cc "a C compiler" gcc libc6-dev
	need have_pkgconfig "pkg-config" pkg-config
	need have_vips "libvips 8.14 or later with its headers" libvips-dev 'libheif-plugin-*'
	need have_postgres "PostgreSQL 14 or later (the server; it need not run)" postgresql
	need have_jemalloc "jemalloc 5 (libjemalloc.so.2)" libjemalloc2
	[ "$1" != run ] || return 0
	need have_redis "redis-server 6 or later (it need not run)" redis-server
	need have_wrk "wrk" wrk
	need have_java "Java 17 or later" java
	any "$cache/kafka-$kafka/kafka_2.13-$kafka.jar" ||
		need have_maven "Maven" maven
	[ "$1" = bench-images ] || return 0
	need have_node "Node.js 18 or later, and npm" nodejs npm
	need have_photographs "photographs in /usr/share/backgrounds" gnome-backgrounds mate-backgrounds
}

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
apt() {
	root env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef \
		-o Dpkg::Options::=--force-confold "$@"
}
known() { apt-cache show "$1" >/dev/null 2>&1; }

# choose maps the names above to packages of this release.
choose() {
	local name java
	for name in "$@"; do
		case $name in
		java)
			for java in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless default-jre-headless; do
				if known "$java"; then echo "$java" && break; fi
			done
			;;
		'libheif-plugin-*') # newer releases have AVIF and HEIC in separate, recommended packages
			for name in libheif-plugin-aomdec libheif-plugin-aomenc libheif-plugin-dav1d libheif-plugin-libde265; do
				if known "$name"; then echo "$name"; fi
			done
			;;
		*) echo "$name" ;;
		esac
	done
}

# quietly runs apt-get and prints one line per package. If it fails, it prints the whole output.
quietly() {
	local log
	log=$(mktemp)
	if ! "$here/alive.sh" "apt-get $1" bash -c '"$@" 2>&1 </dev/null | tee -a "$0" | grep --line-buffered -E "^(Unpacking|Setting up|E:)" || true
		exit "${PIPESTATUS[0]}"' "$log" env -u MAKEFLAGS "${BASH_SOURCE[0]}" apt "$@"; then
		cat "$log" >&2
		echo "apt-get $1 failed; its output is above." >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

# Debian starts installed services and creates a Postgres cluster. Both are disabled during the installation and restored
# after it.
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=''
disable_services() {
	saved=$(mktemp -d)
	if [ -e $policy ]; then root cp -a $policy "$saved/policy"; fi
	printf '#!/bin/sh\nexit 101\n' | root tee $policy >/dev/null
	root chmod 755 $policy
}
restore_services() {
	[ -n "$saved" ] || return 0
	if [ -e "$saved/policy" ]; then root cp -a "$saved/policy" $policy; else root rm -f $policy; fi
	if [ -e "$saved/cluster" ]; then root cp -a "$saved/cluster" $cluster; fi
	root rm -rf "$saved"
	saved=''
}

install_packages() {
	if ! have apt-get; then
		printf 'Install these packages and try again (automatic installation supports only Debian and Ubuntu):\n' >&2
		printf '  - %s\n' "${words[@]}" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ] && ! have sudo; then
		echo "Installing packages needs root or sudo. Install: ${packages[*]}" >&2
		exit 1
	fi
	printf 'to install:\n'
	printf '  - %s\n' "${words[@]}"
	trap restore_services EXIT
	disable_services
	quietly update
	mapfile -t packages < <(choose "${packages[@]}")
	echo "installing packages: ${packages[*]}"
	if [[ " ${packages[*]} " == *" postgresql "* ]]; then
		quietly install --no-install-recommends postgresql-common
		root cp -a $cluster "$saved/cluster"
		echo 'create_main_cluster = false' | root tee -a $cluster >/dev/null
	fi
	quietly install --no-install-recommends "${packages[@]}"
	restore_services
	# The package enables the service, which would start at the next boot.
	if [[ " ${packages[*]} " == *" redis-server "* ]] && have systemctl; then
		root systemctl --quiet disable redis-server 2>/dev/null || true
	fi
}

install_kafka() {
	local jars=$cache/kafka-$kafka fresh
	[ ! -e "$jars/kafka_2.13-$kafka.jar" ] || return 0
	echo "fetching Kafka $kafka into $jars (54 MB, once)"
	mkdir -p "$cache"
	fresh=$(mktemp -d "$cache/.kafka.XXXXXX")
	# Download into a temporary directory first, so that an interrupted download leaves no incomplete Kafka.
	"$here/alive.sh" "fetching Kafka" mvn -q -B -Dstyle.color=never -f "$here/kafka/pom.xml" dependency:copy-dependencies \
		-DoutputDirectory="$fresh" </dev/null | sed 's/\x1b\[[0-9;]*m//g'
	rm -rf "$jars"
	chmod 755 "$fresh"
	mv "$fresh" "$jars"
}

# The newest sharp that supports the installed Node.js.
install_sharp() {
	local version=0.35.5
	if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 9) ? 0 : 1)'; then version=0.34.5; fi
	local home=$cache/sharp
	grep -qs "\"version\": \"$version\"" "$home/node_modules/sharp/package.json" && return 0
	echo "fetching sharp $version into $home"
	mkdir -p "$home"
	"$here/alive.sh" "fetching sharp" npm install --silent --no-audit --no-fund --prefix "$home" "sharp@$version" </dev/null
}

case ${1:-} in
apt) # for quietly
	shift
	apt "$@"
	;;
run | test | bench-images)
	find_missing "$1"
	if [ ${#packages[@]} -gt 0 ]; then install_packages; fi
	if [ "$1" != run ]; then
		install_kafka
		"$here/tool.sh" minio github.com/minio/minio github.com/minio/minio "$minio"
		"$here/kubernetes.sh"
	fi
	if [ "$1" = bench-images ]; then install_sharp; fi
	;;
*)
	echo "usage: install.sh run|test|bench-images" >&2
	exit 2
	;;
esac
