package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/process"
)

// busDistance is how far from its port a Redis node listens for the other nodes.
const busDistance = 10000

const (
	redisNodes = 3
	redisSlots = 16384
	redisPause = 2 * time.Second // bounds one exchange with a node
)

// buildRedis describes a cluster of three masters without replicas, the smallest that clients treat as a cluster.
func buildRedis(dir *workDir, n *process.ForkThread) (*server, error) {
	program, err := lookup("redis-server")
	if err != nil {
		return nil, err
	}
	s := &server{name: "redis"}
	for range redisNodes {
		home, err := dir.sub("redis-", nil)
		if err != nil {
			return nil, err
		}
		listen, err := dir.reserve(busDistance)
		if err != nil {
			return nil, err
		}
		s.addrs = append(s.addrs, listen.Addr())
		s.procs = append(s.procs, &process.Process{
			Name: "redis " + listen.Addr(),
			Argv: []string{
				program, "--port", fmt.Sprint(listen.Port), "--bind", "127.0.0.1", "--dir", home,
				"--cluster-enabled", "yes", "--cluster-node-timeout", "5000",
				// A stopped cluster keeps what it had, and what a node knows of the others.
				"--appendonly", "yes", "--appendfsync", "no", "--save", "",
			},
			Dir: home, Log: filepath.Join(dir.path, filepath.Base(home)+".log"),
			Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopPatience, ForkThread: n,
		})
	}
	s.alive = func(ctx context.Context) error { return everyRedis(ctx, s.addrs, "PING", "PONG") }
	s.form = func(ctx context.Context) error { return formCluster(ctx, s.addrs) }
	s.ready = func(ctx context.Context) error { return clusterReady(ctx, s.addrs, len(s.addrs)) }
	return s, nil
}

// formCluster gives every node its share of the slots and introduces them to each other.
func formCluster(ctx context.Context, addrs []string) error {
	for i, addr := range addrs {
		first, end := i*redisSlots/len(addrs), (i+1)*redisSlots/len(addrs)
		slots := make([]string, 0, end-first)
		for slot := first; slot < end; slot++ {
			slots = append(slots, fmt.Sprint(slot)) // ADDSLOTSRANGE is newer than the oldest Redis we meet
		}
		steps := []string{
			fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1), // equal ones would have to be sorted out first
			"CLUSTER ADDSLOTS " + strings.Join(slots, " "),
		}
		for _, other := range addrs[:i] {
			host, port, err := net.SplitHostPort(other)
			if err != nil {
				return err
			}
			steps = append(steps, "CLUSTER MEET "+host+" "+port)
		}
		for _, step := range steps {
			if err := everyRedis(ctx, []string{addr}, step, "OK"); err != nil {
				return err
			}
		}
	}
	return nil
}

// clusterReady returns nil once every node knows all the others and which of so many masters has which slot. cluster_state
// alone is not enough: a node may say ok and still send clients in circles.
func clusterReady(ctx context.Context, addrs []string, masters int) error {
	for _, want := range []string{
		"cluster_state:ok",
		fmt.Sprintf("cluster_slots_ok:%d", redisSlots),
		fmt.Sprintf("cluster_known_nodes:%d", len(addrs)),
		fmt.Sprintf("cluster_size:%d", masters),
	} {
		if err := everyRedis(ctx, addrs, "CLUSTER INFO", want); err != nil {
			return err
		}
	}
	return nil
}

// everyRedis sends a command to each node and wants to find a text in each answer.
func everyRedis(ctx context.Context, addrs []string, command, want string) error {
	for _, addr := range addrs {
		got, err := askRedis(ctx, addr, command)
		if err != nil {
			return fmt.Errorf("ask %s: %w", addr, err)
		}
		if !strings.Contains(got, want) {
			name, _, _ := strings.Cut(want, ":")
			return fmt.Errorf("redis %s: no %q in the answer to %.40q (%s)", addr, want, command, lineWith(got, name))
		}
	}
	return nil
}

// lineWith returns the first line of text that begins with name, else the beginning of text.
func lineWith(text, name string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name) {
			return strings.TrimSpace(line)
		}
	}
	return fmt.Sprintf("%.80q", text)
}

// askRedis sends one inline command and returns the answer, undecoded: enough to set a cluster up, without a client library
// that every test binary would have to link.
func askRedis(ctx context.Context, addr, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisPause)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	return readReply(bufio.NewReader(conn))
}

// readReply reads a status, an error or a bulk string.
func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[:min(1, len(line))] {
	case "+":
		return line[1:], nil
	case "-":
		return "", errors.New(line[1:])
	case "$":
		var size int
		if _, err := fmt.Sscanf(line, "$%d", &size); err != nil || size < 0 {
			return "", fmt.Errorf("answer of no size: %q", line)
		}
		body := make([]byte, size)
		for read := 0; read < size; {
			n, err := r.Read(body[read:])
			if err != nil {
				return "", err
			}
			read += n
		}
		return string(body), nil
	default:
		return "", fmt.Errorf("unexpected answer %.80q", line)
	}
}
