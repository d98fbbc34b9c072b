#!/bin/sh
# Starts one node of the Redis Cluster. The settings come from standard input, so that the password is neither in a file nor in the
# list of processes.
#
# Environment: POD_NAME POD_IP SERVICE NAMESPACE MAX_MEMORY REDISCLI_AUTH (the password).
set -eu

# The cluster's domain, from the search path "NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN": clients need one look-up for a fully qualified
# name, and up to six for any other.
domain=$(sed -n "s/^search.* $NAMESPACE\.svc\.\([^ ]*\).*/.\1/p" /etc/resolv.conf)
host="$POD_NAME.$SERVICE.$NAMESPACE.svc$domain"
password=$(printf '%s' "$REDISCLI_AUTH" | sed 's/[\\"]/\\&/g')

exec redis-server - <<SETTINGS
port 6379
bind * -::*
protected-mode no
dir /data
requirepass "$password"
masterauth "$password"

cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 5000
# Part of a cache is better than none.
cluster-require-full-coverage no
# A replica takes over even if its data is old; readers compare versions.
cluster-replica-validity-factor 0
# Clients get names, which are stable; other nodes get the address, which changes with every pod.
cluster-announce-ip $POD_IP
cluster-announce-hostname $host
cluster-preferred-endpoint-type hostname

# Persistence: replicas would copy a node that came back empty.
save ""
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 16mb
maxmemory $MAX_MEMORY
maxmemory-policy allkeys-lru
SETTINGS
