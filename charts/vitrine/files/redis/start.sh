#!/bin/sh
# Starts one node of the Redis Cluster. The settings come by standard input, so that the password is neither in a file nor
# in the list of processes.
#
# Environment: POD_NAME POD_IP SERVICE NAMESPACE MAX_MEMORY REDISCLI_AUTH (the password).
set -eu

# The cluster's domain, from the search path "NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN": clients need one look-up for a name
# that is whole, and up to six for one that is not.
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
# What is left of a cache is better than none of it.
cluster-require-full-coverage no
# A replica takes over however old its data is; readers compare versions.
cluster-replica-validity-factor 0
# Clients are told names, which stay; peers are told the address, which changes with every pod.
cluster-announce-ip $POD_IP
cluster-announce-hostname $host
cluster-preferred-endpoint-type hostname

# A node that came back empty would be copied by its replicas.
save ""
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 16mb
maxmemory $MAX_MEMORY
maxmemory-policy allkeys-lru
SETTINGS
