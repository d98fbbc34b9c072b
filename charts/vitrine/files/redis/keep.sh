#!/bin/sh
# Keeps this node in its cluster, and the cluster complete. It runs beside every node and compares the actual with the wanted state
# every few seconds, so that the first start, a restart of all nodes with new addresses and a lost volume are the same case.
#
#   every node     knows all others by their current addresses            CLUSTER MEET
#                  copies its master from its current address             CLUSTER REPLICATE
#   while all nodes answer,
#     the leader   (the first node) ensures that
#                  the replica of a permanently lost master takes over       CLUSTER FAILOVER TAKEOVER
#                  every slot has a master                                   CLUSTER ADDSLOTSRANGE
#                  masters without slots become replicas                     CLUSTER REPLICATE
#     every node   forgets the ids of lost nodes, because a node that lost
#                  its volume comes back with another id                     CLUSTER FORGET
#
# Redis does the rest itself, elections in particular.
#
# Environment: POD_NAME SET SERVICE NAMESPACE NODES MASTERS REDISCLI_AUTH, REPAIR_AFTER (seconds before an irreversible step).
set -u
trap 'exit 0' TERM INT

REPAIR_AFTER=${REPAIR_AFTER:-30}
me=${POD_NAME##*-}
since=0 # when the current fault was first seen while all nodes answered

say() { printf '%s\n' "$*"; }
ask() { h=$1; shift; timeout 3 redis-cli -e -h "$h" "$@" 2>&1; }
name_of() { printf '%s-%s.%s.%s.svc' "$SET" "$1" "$SERVICE" "$NAMESPACE"; }

# healthy: does this node see a complete cluster? It needs one connection, to the local node, because it runs all the time.
healthy() {
  printf 'info replication\ncluster info\ncluster nodes\n' | timeout 3 redis-cli -h 127.0.0.1 2>/dev/null | tr -d '\r' | awk -v nodes="$NODES" '
    /^master_host:/ { copied = substr($0, 13) }
    /^cluster_state:ok/ { ok = 1 }
    /^cluster_slots_assigned:16384/ { whole = 1 }
    $2 ~ /@/ {
      seen++
      a = $2; sub(/@.*/, "", a); sub(/:[0-9]+$/, "", a); address[$1] = a
      if ($3 ~ /myself,slave/) master = $4
      if ($3 ~ /fail|handshake|noaddr/ || ($8 != "connected" && $3 !~ /myself/)) bad = 1
      if ($3 ~ /master/ && NF < 9) bad = 1
    }
    END { exit !(ok && whole && seen == nodes && !bad && (copied == "" || copied == address[master])) }'
}

# roster: one line for each node that answers: ordinal id address role master slots... A name may still resolve to an address that
# another release has now, and CLUSTER MEET with that node would join two clusters permanently. So a node counts only if it accepts
# our password and announces the name by which it was reached.
roster() {
  i=0
  while [ "$i" -lt "$NODES" ]; do
    host=$(name_of "$i")
    [ "$i" = "$me" ] && host=127.0.0.1
    printf 'config get cluster-announce-hostname\ncluster nodes\n' | timeout 3 redis-cli -h "$host" 2>/dev/null | tr -d '\r' |
      awk -v ordinal="$i" -v name="$(name_of "$i")" '
        NR == 2 && index($1, name) == 1 { ours = 1 }
        ours && $3 ~ /myself/ {
          address = $2; sub(/@.*/, "", address); sub(/:[0-9]+$/, "", address)
          printf "%s %s %s %s %s", ordinal, $1, address, ($3 ~ /master/ ? "master" : "slave"), $4
          for (f = 9; f <= NF; f++) if ($f !~ /^\[/) printf " %s", $f
          print ""
        }'
    i=$((i + 1))
  done
}

# meet: gives this node the current address of each node that it does not know or cannot reach.
meet() {
  printf '%s\n' "$all" | while read -r ordinal id address _; do
    [ "$ordinal" = "$me" ] && continue
    printf '%s\n' "$view" | awk -v id="$id" -v address="$address" '
      $1 == id { a = $2; sub(/@.*/, "", a); sub(/:[0-9]+$/, "", a)
        if (a == address && $8 == "connected" && $3 !~ /handshake|noaddr/) known = 1 }
      END { exit !known }' && continue
    say "meet $(name_of "$ordinal") at $address: $(ask 127.0.0.1 cluster meet "$address" 6379)"
  done
}

# follow: makes this replica copy its master from its current address. A replica that learns the address by gossip still uses the
# old one.
follow() {
  copied=$(printf 'info replication\n' | timeout 3 redis-cli -h 127.0.0.1 2>/dev/null | tr -d '\r' | sed -n 's/^master_host://p')
  [ -n "$copied" ] || return # this node is a master
  printf '%s\n' "$view" | awk -v copied="$copied" '
    { a = $2; sub(/@.*/, "", a); sub(/:[0-9]+$/, "", a); address[$1] = a }
    $3 ~ /myself/ { master = $4 }
    END { if (address[master] != "" && address[master] != copied) print master }' | while read -r master; do
    say "copy $master from its current address, not from $copied: $(ask 127.0.0.1 cluster replicate "$master")"
  done
}

# orphans: "address id" of each replica whose master is not in the roster.
orphans() {
  printf '%s\n' "$all" | awk '{ id[$2]; line[NR] = $0 } END { for (n = 1; n <= NR; n++) {
    split(line[n], f); if (f[4] == "slave" && !(f[5] in id)) print f[3], f[2] } }'
}

# lost: ids that this node knows and that no answering node has.
lost() {
  printf '%s\n--\n%s\n' "$all" "$view" | awk '
    $1 == "--" { rest = 1; next }
    !rest { id[$2]; next }
    $3 !~ /handshake/ && !($1 in id) { print $1 }'
}

# strangers: ids of answering nodes that this node does not know yet.
strangers() {
  printf '%s\n--\n%s\n' "$view" "$all" | awk '
    $1 == "--" { rest = 1; next }
    !rest { if ($3 !~ /handshake/) id[$1]; next }
    !($2 in id) { print $2 }'
}

# missing: the slots that no answering master has, in $1 parts, one "from to" a line; "next" separates parts. On the first start,
# this is the whole range in equal parts.
missing() {
  printf '%s\n' "$all" | awk -v parts="$1" '
    $4 == "master" { for (f = 6; f <= NF; f++) { n = split($f, r, "-"); for (s = r[1]; s <= r[n]; s++) has[s] } }
    END {
      for (s = 0; s < 16384; s++) if (!(s in has)) count++
      if (!count) exit
      per = int((count + parts - 1) / parts); left = per; from = -1
      for (s = 0; s <= 16384; s++) {
        gap = s < 16384 && !(s in has)
        if (from >= 0 && (!gap || !left)) { print from, s - 1; from = -1 }
        if (gap) { if (!left) { print "next"; left = per } if (from < 0) from = s; left-- }
      }
    }'
}

# assign: gives the missing ranges to masters without slots, in the order of their ordinals, or to the first master if enough
# masters have slots.
assign() {
  with=$(printf '%s\n' "$all" | awk '$4 == "master" && NF > 5 { n++ } END { print n + 0 }')
  parts=$((MASTERS - with))
  if [ "$parts" -gt 0 ]; then
    takers=$(printf '%s\n' "$all" | awk '$4 == "master" && NF == 5 { print $3 }')
  else
    parts=1
    takers=$(printf '%s\n' "$all" | awk '$4 == "master" && NF > 5 { print $3; exit }')
  fi
  missing "$parts" | {
    # shellcheck disable=SC2086 # one word for each taker
    set -- $takers
    while read -r from to; do
      [ "$from" = next ] && { shift; continue; }
      [ $# -gt 0 ] || break
      say "slots $from to $to to $1: $(ask "$1" cluster addslotsrange "$from" "$to")"
    done
  }
}

# replicate: makes each master without slots a replica of the master with the fewest replicas.
replicate() {
  printf '%s\n' "$all" | awk '
    $4 == "master" && NF > 5 { m[++masters] = $2; copies[$2] += 0 }
    $4 == "slave" { copies[$5]++ }
    $4 == "master" && NF == 5 { empty[++n] = $3 }
    END {
      if (masters) for (e = 1; e <= n; e++) {
        best = m[1]
        for (k = 2; k <= masters; k++) if (copies[m[k]] < copies[best]) best = m[k]
        copies[best]++
        print empty[e], best
      }
    }' | while read -r address master; do
    say "$address becomes a replica of $master: $(ask "$address" cluster replicate "$master")"
  done
}

look() {
  view=$(printf 'cluster nodes\n' | timeout 3 redis-cli -h 127.0.0.1 2>/dev/null | tr -d '\r' | awk '$2 ~ /@/')
  [ -n "$view" ] || return # the local node is starting
  all=$(roster)
  meet
  follow
  if [ "$(printf '%s\n' "$all" | wc -l)" -ne "$NODES" ]; then
    since=0
    return
  fi
  now=$(date +%s)
  [ "$since" -gt 0 ] || since=$now
  overdue=$((now - since >= REPAIR_AFTER))

  heirs=$(orphans)
  if [ -n "$heirs" ]; then
    # Redis may still elect a replica. If it does not, too many masters were lost at once for an election.
    [ "$me" = 0 ] && [ "$overdue" = 1 ] && printf '%s\n' "$heirs" | while read -r address id; do
      say "$id at $address takes over from its lost master: $(ask "$address" cluster failover takeover)"
    done
    return # if its master were forgotten, the replica would stay without slots
  fi
  if [ "$overdue" = 1 ]; then
    for id in $(lost); do
      say "forget $id, which no answering node has: $(ask 127.0.0.1 cluster forget "$id")"
    done
  fi
  [ "$me" = 0 ] && [ -z "$(strangers)" ] || return
  if [ -n "$(missing 1)" ]; then
    assign
  else
    replicate
  fi
}

last=""
while :; do
  if healthy; then
    since=0
    [ "$last" = complete ] || say "the cluster is complete"
    last=complete
    pause=5
  else
    [ "$last" = complete ] && say "the cluster is not complete"
    last=""
    look
    pause=2
  fi
  sleep "$pause" &
  wait $!
done
