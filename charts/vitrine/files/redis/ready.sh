#!/bin/sh
# A node is ready when its cluster is complete, so that `helm install --wait` waits for that, and a rolling update replaces the next
# pod only then. From two minutes after its start a node is always ready: otherwise, an update that repairs a broken cluster would
# wait for the cluster.
state=$(printf 'info server\ninfo replication\ncluster info\n' | timeout 4 redis-cli -h 127.0.0.1 2>/dev/null | tr -d '\r')
value() { printf '%s\n' "$state" | sed -n "s/^$1://p"; }

uptime=$(value uptime_in_seconds)
[ -n "$uptime" ] || exit 1
[ "$uptime" -lt 120 ] || exit 0
[ "$(value cluster_state)" = ok ] && [ "$(value cluster_slots_assigned)" = 16384 ] || exit 1
[ "$(value role)" = master ] || [ "$(value master_link_status)" = up ]
