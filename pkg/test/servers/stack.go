package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"vitrine.io/pkg/foundation/process"
)

// StackBrokers is how many brokers a Stack has.
const StackBrokers = 3

// Stack is servers as they are run where they must not fail, for a program that makes them fail: a Postgres that keeps what
// it has committed when it is killed, a Redis Cluster of three masters with a replica each, three Kafka brokers and a MinIO.
// Each process can be killed, paused and started again by itself.
type Stack struct {
	Postgres *Node
	Redis    []*Node // six
	Kafka    []*Node // StackBrokers
	MinIO    *Node
	DSN      string // a pgx URL of a superuser
	S3       Bucket // without a name

	env *environment
}

// StartStack starts everything at once, and returns when it serves. advertised are the addresses that clients of Kafka are
// sent to, one for each broker, which is where somebody else listens and passes on what comes to the broker's own address.
func StartStack(getenv func(string) string, advertised [StackBrokers]string) (*Stack, error) {
	env := newEnvironment(getenv)
	kafka := func(dir *workDir, n *process.ForkThread) (*server, error) { return buildBrokers(dir, n, advertised) }
	builders := []builder{buildDurablePostgres, buildReplicatedRedis, kafka, buildS3}
	servers, errs := make([]*server, len(builders)), make([]error, len(builders))
	var all sync.WaitGroup
	for i, build := range builders {
		all.Go(func() { servers[i], errs[i] = env.launch(build) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, env.stop())
	}
	postgres, s3 := servers[0], servers[3]
	return &Stack{
		Postgres: newNode(postgres, 0, syscall.SIGQUIT, postgres.ready), // its children are in groups of their own
		Redis: nodes(servers[1], func(ctx context.Context, addr string) error {
			return everyRedis(ctx, []string{addr}, "CLUSTER INFO", "cluster_state:ok")
		}),
		Kafka: nodes(servers[2], askKafka),
		MinIO: newNode(s3, 0, syscall.SIGKILL, s3.ready),
		DSN:   postgresDSN(postgres, postgresDB),
		S3:    Bucket{Endpoint: "http://" + s3.addrs[0], Region: s3Region, AccessKey: s3AccessKey, SecretKey: s3SecretKey},
		env:   env,
	}, nil
}

// Stop stops everything and removes its files.
func (s *Stack) Stop() error { return s.env.stop() }

// RemoveBucket deletes a bucket with everything in it. That it was never made is fine.
func (s *Stack) RemoveBucket(ctx context.Context, b Bucket) error { return removeBucket(ctx, b) }

// WithSchema is the stack's DSN with a schema first on the search path.
func (s *Stack) WithSchema(schema string) (string, error) { return withSearchPath(s.DSN, schema) }

// Masters are the Redis nodes that say they are masters, in the order of s.Redis. A node that does not answer is none.
func (s *Stack) Masters(ctx context.Context) []*Node {
	var masters []*Node
	for _, n := range s.Redis {
		if text, err := askRedis(ctx, n.Addr, "INFO replication"); err == nil && strings.Contains(text, "role:master") {
			masters = append(masters, n)
		}
	}
	return masters
}

// RedisReady returns nil when the cluster is whole: all know each other, each slot has its master, and each replica follows.
func (s *Stack) RedisReady(ctx context.Context) error {
	addrs := make([]string, len(s.Redis))
	for i, n := range s.Redis {
		addrs[i] = n.Addr
	}
	return replicatedReady(ctx, addrs)
}

// Node is one process of a Stack. It may be used concurrently.
type Node struct {
	Name string
	Addr string

	mu      sync.Mutex
	process *process.Process
	hard    syscall.Signal // ends it at once
	ready   func(context.Context) error
}

func newNode(s *server, i int, hard syscall.Signal, ready func(context.Context) error) *Node {
	return &Node{Name: s.procs[i].Name, Addr: s.addrs[i], process: s.procs[i], hard: hard, ready: ready}
}

func nodes(s *server, ready func(context.Context, string) error) []*Node {
	all := make([]*Node, len(s.procs))
	for i := range all {
		addr := s.addrs[i]
		all[i] = newNode(s, i, syscall.SIGKILL, func(ctx context.Context) error { return ready(ctx, addr) })
	}
	return all
}

// Kill ends the process without giving it time for anything, and returns when it is gone. A dead one is left as it is.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process.Running() {
		_ = syscall.Kill(n.process.PID(), n.hard) // it may have ended a moment ago
		_ = syscall.Kill(n.process.PID(), syscall.SIGCONT)
		<-n.process.Exited()
	}
	return n.process.Stop()
}

// Pause stops the process where it is, like a machine that hangs.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on. One that is not paused, or dead, is left as it is.
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

func (n *Node) signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.process.Running() {
		return nil
	}
	if err := syscall.Kill(n.process.PID(), sig); err != nil {
		return fmt.Errorf("signal %s: %w", n.Name, err)
	}
	return nil
}

// Start starts a dead process again at the same address, and returns when it has begun: see Await. One that runs is left as
// it is.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process.Running() {
		return nil
	}
	return n.process.Start()
}

// Await returns when the process serves.
func (n *Node) Await(ctx context.Context) error {
	if err := until(ctx, func() error { return n.ready(ctx) }); err != nil {
		return fmt.Errorf("%s is not up: %w\n%s", n.Name, err, n.process.Tail())
	}
	return nil
}

// buildDurablePostgres describes a Postgres that loses nothing when it is killed, as long as the machine stays up.
func buildDurablePostgres(dir *workDir, n *process.ForkThread) (*server, error) {
	s, err := buildPostgres(dir, n)
	if err != nil {
		return nil, err
	}
	settings := filepath.Join(s.procs[0].Dir, "data", "postgresql.auto.conf")
	f, err := os.OpenFile(settings, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("configure postgres: %w", err)
	}
	_, err = f.WriteString("synchronous_commit = on\nlog_min_messages = error\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("configure postgres: %w", err)
	}
	return s, nil
}
