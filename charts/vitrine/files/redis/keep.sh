#!/bin/sh
# Keeps this node in its cluster and the cluster whole. It runs beside every node, looks every few seconds, and compares what
# is with what should be, so that the first start, a restart of all nodes with new addresses and a lost volume are one case.
#
#   every node     knows all others under their present addresses         CLUSTER MEET
#                  copies its master from where that is now               CLUSTER REPLICATE
#   while all nodes answer,
#     the leader   (the first node) sees to it that
#                  the replica of a master that is gone for good takes over  CLUSTER FAILOVER TAKEOVER
#                  every slot has a master                                   CLUSTER ADDSLOTSRANGE
#                  masters without slots become replicas                     CLUSTER REPLICATE
#     every node   forgets identities that no node answers to, since a node
#                  that lost its volume comes back under another one         CLUSTER FORGET
#
# What Redis does itself, elections above all, is left to it.
#
# Environment: POD_NAME SET SERVICE NAMESPACE NODES MASTERS REDISCLI_AUTH, PATIENCE (seconds before what cannot be undone).
set -u
trap 'exit 0' TERM INT

PATIENCE=${PATIENCE:-30}
me=${POD_NAME##*-}
since=0 # when all nodes answered, and something was wrong, for the first time in a row

say() { printf '%s\n' "$*"; }
ask() { h=$1; shift; timeout 3 redis-cli -e -h "$h" "$@" 2>&1; }
name_of() { printf '%s-%s.%s.%s.svc' "$SET" "$1" "$SERVICE" "$NAMESPACE"; }

# healthy: does this node see a whole cluster? One question to the node beside, since this is asked for ever.
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

# roster: one line for each node that answers: ordinal id address role master slots... A name may still lead to an address
# that another release has by now, and to meet that would join two clusters for ever: so whoever is met has taken our
# password and calls itself by the name it was called by.
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

# meet: tells this node the present address of each that it does not know, or does not reach.
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

# follow: has this replica copy its master from its present address. A replica that learns of it by gossip knows it, and goes
# on asking at the one from before.
follow() {
  copied=$(printf 'info replication\n' | timeout 3 redis-cli -h 127.0.0.1 2>/dev/null | tr -d '\r' | sed -n 's/^master_host://p')
  [ -n "$copied" ] || return # it is a master
  printf '%s\n' "$view" | awk -v copied="$copied" '
    { a = $2; sub(/@.*/, "", a); sub(/:[0-9]+$/, "", a); address[$1] = a }
    $3 ~ /myself/ { master = $4 }
    END { if (address[master] != "" && address[master] != copied) print master }' | while read -r master; do
    say "copy $master from its present address, not from $copied: $(ask 127.0.0.1 cluster replicate "$master")"
  done
}

# orphans: "address id" of each replica whose master answers to no name.
orphans() {
  printf '%s\n' "$all" | awk '{ id[$2]; line[NR] = $0 } END { for (n = 1; n <= NR; n++) {
    split(line[n], f); if (f[4] == "slave" && !(f[5] in id)) print f[3], f[2] } }'
}

# lost: ids that this node knows and that no node answers to.
lost() {
  printf '%s\n--\n%s\n' "$all" "$view" | awk '
    $1 == "--" { rest = 1; next }
    !rest { id[$2]; next }
    $3 !~ /handshake/ && !($1 in id) { print $1 }'
}

# strangers: nodes that answer and that this node does not know yet.
strangers() {
  printf '%s\n--\n%s\n' "$view" "$all" | awk '
    $1 == "--" { rest = 1; next }
    !rest { if ($3 !~ /handshake/) id[$1]; next }
    !($2 in id) { print $2 }'
}

# missing: slot ranges that no answering master has, as many as there are masters to be made, one "from to" a line. $1: how
# many. On a first start that is the whole range in equal parts.
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

# assign: gives the missing ranges to masters that have none, in the order of their ordinals, or to the first master if
# enough have some.
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

# replicate: makes each master without slots a replica of the master that has the fewest.
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
  [ -n "$view" ] || return # it is starting
  all=$(roster)
  meet
  follow
  if [ "$(printf '%s\n' "$all" | wc -l)" -ne "$NODES" ]; then
    since=0
    return
  fi
  now=$(date +%s)
  [ "$since" -gt 0 ] || since=$now
  patient=$((now - since >= PATIENCE))

  heirs=$(orphans)
  if [ -n "$heirs" ]; then
    # An election may still help. If it does not, too many masters are gone at once to elect anybody.
    [ "$me" = 0 ] && [ "$patient" = 1 ] && printf '%s\n' "$heirs" | while read -r address id; do
      say "$id at $address takes over from its lost master: $(ask "$address" cluster failover takeover)"
    done
    return # a replica whose master was forgotten would stay without slots
  fi
  if [ "$patient" = 1 ]; then
    for id in $(lost); do
      say "forget $id, to which no node answers: $(ask 127.0.0.1 cluster forget "$id")"
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
    [ "$last" = whole ] || say "the cluster is whole"
    last=whole
    pause=5
  else
    [ "$last" = whole ] && say "the cluster is not whole"
    last=""
    look
    pause=2
  fi
  sleep "$pause" &
  wait $!
done
