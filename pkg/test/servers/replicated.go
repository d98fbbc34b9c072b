package servers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"vitrine.io/pkg/foundation/process"
)

// failoverTimeout is the cluster-node-timeout of a Stack's Redis, after which a replica replaces a master that does not
// answer.
const failoverTimeout = 2 * time.Second

// buildReplicatedRedis describes a cluster of three masters with one replica each.
func buildReplicatedRedis(dir *workDir, n *process.ForkThread) (*server, error) {
	s, err := buildRedis(dir, n)
	if err != nil {
		return nil, err
	}
	replicas, err := buildRedis(dir, n)
	if err != nil {
		return nil, err
	}
	s.addrs, s.procs = append(s.addrs, replicas.addrs...), append(s.procs, replicas.procs...)
	for _, p := range s.procs {
		p.Argv = append(p.Argv, "--repl-diskless-sync-delay", "0",
			"--cluster-node-timeout", fmt.Sprint(failoverTimeout.Milliseconds()))
	}
	s.setup = func(ctx context.Context) error { return setUpReplicated(ctx, s.addrs) }
	s.ready = func(ctx context.Context) error { return replicatedReady(ctx, s.addrs) }
	return s, nil
}

// setUpReplicated makes the first half of the nodes masters, and each other node a replica of one of them.
func setUpReplicated(ctx context.Context, addrs []string) error {
	masters, replicas := addrs[:len(addrs)/2], addrs[len(addrs)/2:]
	if err := setUpCluster(ctx, masters); err != nil {
		return err
	}
	host, port, _ := strings.Cut(masters[0], ":")
	for i, addr := range replicas {
		epoch := fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", len(masters)+i+1)
		for _, step := range []string{epoch, "CLUSTER MEET " + host + " " + port} {
			if err := everyRedis(ctx, []string{addr}, step, "OK"); err != nil {
				return err
			}
		}
	}
	allKnown := fmt.Sprintf("cluster_known_nodes:%d", len(addrs))
	if err := until(ctx, func() error { return everyRedis(ctx, addrs, "CLUSTER INFO", allKnown) }); err != nil {
		return err
	}
	for i, addr := range replicas {
		id, err := queryRedis(ctx, masters[i], "CLUSTER MYID")
		if err != nil {
			return fmt.Errorf("get the id of %s: %w", masters[i], err)
		}
		follow := func() error { return everyRedis(ctx, []string{addr}, "CLUSTER REPLICATE "+id, "OK") }
		if err := until(ctx, follow); err != nil {
			return err
		}
	}
	return nil
}

// replicatedReady returns nil if every node knows all others, every slot has a master, and every replica follows its master.
func replicatedReady(ctx context.Context, addrs []string) error {
	if err := clusterReady(ctx, addrs, len(addrs)/2); err != nil {
		return err
	}
	masters := 0
	for _, addr := range addrs {
		text, err := queryRedis(ctx, addr, "INFO replication")
		switch {
		case err != nil:
			return fmt.Errorf("query %s: %w", addr, err)
		case strings.Contains(text, "role:master"):
			masters++
		case !strings.Contains(text, "master_link_status:up"):
			return fmt.Errorf("redis %s does not follow its master yet", addr)
		}
	}
	if masters != len(addrs)/2 {
		return fmt.Errorf("redis: %d masters, want %d", masters, len(addrs)/2)
	}
	return nil
}

// until calls step until it succeeds or ctx ends.
func until(ctx context.Context, step func() error) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := step()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// brokerProperties configure one of three nodes that are broker and controller. Clients get another address than the other
// brokers. With acks=all a record is on at least two brokers. A broker without a heartbeat for 4 s is removed.
const brokerProperties = `
process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listeners=CLIENT://%[3]s,INTERNAL://%[4]s,CONTROLLER://%[5]s
advertised.listeners=CLIENT://%[6]s,INTERNAL://%[4]s,CONTROLLER://%[5]s
listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[7]s
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
unclean.leader.election.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=4000
leader.imbalance.check.interval.seconds=5
num.network.threads=2
num.io.threads=2
log.index.size.max.bytes=1048576
log.cleaner.enable=false
`

// buildBrokers formats the storage of three nodes and describes their processes.
func buildBrokers(dir *workDir, n *process.ForkThread, advertised [StackBrokers]string) (*server, error) {
	var ports [StackBrokers][3]string // for clients, for brokers, for controllers
	var voters []string
	for i := range ports {
		for j := range ports[i] {
			listen, err := dir.reserve()
			if err != nil {
				return nil, err
			}
			ports[i][j] = listen.Addr()
		}
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, ports[i][2]))
	}
	s := &server{name: "kafka", procs: make([]*process.Process, StackBrokers)}
	errs := make([]error, StackBrokers)
	var all sync.WaitGroup
	for i, p := range ports {
		s.addrs = append(s.addrs, p[0])
		all.Go(func() {
			s.procs[i], errs[i] = buildBroker(dir, n, broker{
				name: fmt.Sprintf("kafka-%d", i), heap: []string{"-Xms64m", "-Xmx256m"}, format: "--ignore-formatted",
				properties: func(data string) string {
					return fmt.Sprintf(brokerProperties, i+1, strings.Join(voters, ","), p[0], p[1], p[2], advertised[i], data)
				},
			})
		})
	}
	all.Wait()
	s.ready = func(ctx context.Context) error {
		for _, addr := range s.addrs {
			if err := pingKafka(ctx, addr); err != nil {
				return err
			}
		}
		return nil
	}
	return s, errors.Join(errs...)
}
