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

// Stack is a set of replicated servers for fault injection: a Postgres that keeps committed data when it is killed, a Redis
// Cluster of three masters with one replica each, three Kafka brokers and a MinIO. Each process can be killed, paused and
// restarted separately.
type Stack struct {
	Postgres *Node
	Redis    []*Node // six
	Kafka    []*Node // StackBrokers
	MinIO    *Node
	DSN      string // a pgx URL, as a superuser
	S3       Bucket // without a bucket name

	env *environment
}

// StartStack starts all servers concurrently, and returns when they are ready. advertised are the addresses, host:port, that
// the brokers advertise to clients, in the order of Stack.Kafka: there a proxy of the caller forwards connections to the
// broker's own address.
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
		Postgres: newNode(postgres, 0, syscall.SIGQUIT, postgres.ready), // its children are in other process groups
		Redis: nodes(servers[1], func(ctx context.Context, addr string) error {
			return everyRedis(ctx, []string{addr}, "CLUSTER INFO", "cluster_state:ok")
		}),
		Kafka: nodes(servers[2], pingKafka),
		MinIO: newNode(s3, 0, syscall.SIGKILL, s3.ready),
		DSN:   postgresDSN(postgres, postgresDB),
		S3:    Bucket{Endpoint: "http://" + s3.addrs[0], Region: s3Region, AccessKey: s3AccessKey, SecretKey: s3SecretKey},
		env:   env,
	}, nil
}

// Stop stops all servers and removes their files.
func (s *Stack) Stop() error { return s.env.stop() }

// RemoveBucket deletes a bucket with all its objects. A missing bucket is not an error.
func (s *Stack) RemoveBucket(ctx context.Context, b Bucket) error { return removeBucket(ctx, b) }

// Masters returns the Redis nodes that report the role master, in the order of s.Redis, without those that do not answer.
func (s *Stack) Masters(ctx context.Context) []*Node {
	var masters []*Node
	for _, n := range s.Redis {
		if text, err := queryRedis(ctx, n.Addr, "INFO replication"); err == nil && strings.Contains(text, "role:master") {
			masters = append(masters, n)
		}
	}
	return masters
}

// RedisReady returns nil if all nodes know each other, every slot has a master, and every replica follows its master.
func (s *Stack) RedisReady(ctx context.Context) error {
	addrs := make([]string, len(s.Redis))
	for i, n := range s.Redis {
		addrs[i] = n.Addr
	}
	return replicatedReady(ctx, addrs)
}

// Node is one process of a Stack. It is safe for concurrent use.
type Node struct {
	Name string
	Addr string

	mu      sync.Mutex
	process *process.Process
	kill    syscall.Signal // ends it without a shutdown
	ready   func(context.Context) error
}

func newNode(s *server, i int, kill syscall.Signal, ready func(context.Context) error) *Node {
	return &Node{Name: s.procs[i].Name, Addr: s.addrs[i], process: s.procs[i], kill: kill, ready: ready}
}

func nodes(s *server, ready func(context.Context, string) error) []*Node {
	all := make([]*Node, len(s.procs))
	for i := range all {
		addr := s.addrs[i]
		all[i] = newNode(s, i, syscall.SIGKILL, func(ctx context.Context) error { return ready(ctx, addr) })
	}
	return all
}

// Kill ends the process without a shutdown, and returns when it has ended. It does nothing if the process does not run.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process.Running() {
		_ = syscall.Kill(n.process.PID(), n.kill) // it may have ended a moment ago
		_ = syscall.Kill(n.process.PID(), syscall.SIGCONT)
		<-n.process.Exited()
	}
	return n.process.Stop()
}

// Stop shuts the process down, and returns when it has ended. It does nothing if the process does not run.
func (n *Node) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process.Stop()
}

// Pause stops the process with SIGSTOP, like a hanging machine. It does nothing if the process does not run.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume continues a paused process. It does nothing if the process is not paused or does not run.
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

// Start restarts the process at the same address, and does not wait until it is ready: see Await. It does nothing if the
// process runs.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process.Running() {
		return nil
	}
	return n.process.Start()
}

// Await waits until the process is ready. The error has the end of its log.
func (n *Node) Await(ctx context.Context) error {
	if err := until(ctx, func() error { return n.ready(ctx) }); err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", n.Name, err, n.process.Tail())
	}
	return nil
}

// buildDurablePostgres describes a Postgres that loses no commit when it is killed, though it may when the machine fails.
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
