package servers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/process"
)

const (
	kafkaVersion   = "4.1.1"
	kafkaClusterID = "dml0cmluZS10ZXN0ZW52MQ" // 16 bytes in base64, as Kafka wants it
	kafkaPause     = 2 * time.Second          // bounds one exchange with the broker
)

// kafkaProperties describe one node that is broker and controller. A group's first join does not wait for others, so that
// a test's consumer starts at once.
const kafkaProperties = `
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=%[2]s
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.index.size.max.bytes=1048576
log.cleaner.enable=false
`

// kafkaLogging keeps what explains a broker that does not start.
const kafkaLogging = `
status = warn
appenders = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = out
`

// buildKafka formats a KRaft node's storage and describes the broker on it.
func buildKafka(dir *workDir, n *process.ForkThread) (*server, error) {
	clients, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	controller, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	p, err := buildBroker(dir, n, broker{
		name: "kafka", heap: []string{"-Xms128m", "-Xmx384m"}, format: "--standalone",
		properties: func(data string) string { return fmt.Sprintf(kafkaProperties, clients.Addr(), controller.Addr(), data) },
	})
	if err != nil {
		return nil, err
	}
	s := &server{name: "kafka", addrs: []string{clients.Addr()}, procs: []*process.Process{p}}
	s.ready = func(ctx context.Context) error { return askKafka(ctx, s.addrs[0]) }
	return s, nil
}

// broker is one node of Kafka.
type broker struct {
	name       string
	heap       []string                 // of its JVM
	format     string                   // who votes: "--standalone" is the node alone
	properties func(data string) string // data is the directory of its log
}

// buildBroker formats a node's storage and describes its process.
func buildBroker(dir *workDir, n *process.ForkThread, b broker) (*process.Process, error) {
	java, err := lookup("java")
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars(os.Getenv)
	if err != nil {
		return nil, err
	}
	home, err := dir.sub(b.name+"-", nil)
	if err != nil {
		return nil, err
	}
	properties, logging := filepath.Join(home, "server.properties"), filepath.Join(home, "log4j2.properties")
	if err := errors.Join(
		os.WriteFile(properties, []byte(b.properties(filepath.Join(home, "data"))), 0o600),
		os.WriteFile(logging, []byte(kafkaLogging), 0o600),
	); err != nil {
		return nil, fmt.Errorf("configure kafka: %w", err)
	}
	jvm := append([]string{
		// A start in half the time, for a broker that lives for minutes.
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + logging, "-cp", filepath.Join(jars, "*"),
	}, b.heap...)
	if err := formatKafka(java, jvm, properties, n, b.format); err != nil {
		return nil, err
	}
	return &process.Process{
		Name: b.name, Argv: append(append([]string{java}, jvm...), "kafka.Kafka", properties),
		Dir: home, Log: filepath.Join(dir.path, filepath.Base(home)+".log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopPatience, ForkThread: n,
	}, nil
}

// kafkaJars is the directory that make deps-test fills.
func kafkaJars(getenv func(string) string) (string, error) {
	cache, err := cacheDir(getenv)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "kafka-"+kafkaVersion)
	if _, err := os.Stat(filepath.Join(dir, "kafka_2.13-"+kafkaVersion+".jar")); err != nil {
		return "", missing("Kafka " + kafkaVersion + " (" + dir + ")")
	}
	return dir, nil
}

// cacheDir is where make deps-test puts what it builds and downloads.
func cacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "vitrine"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", fmt.Errorf("neither XDG_CACHE_HOME nor HOME says where the cache is")
	}
	return filepath.Join(home, ".cache", "vitrine"), nil
}

// formatKafka makes the files of a new node.
func formatKafka(java string, jvm []string, properties string, n *process.ForkThread, how string) error {
	args := append(append([]string{}, jvm...), "kafka.tools.StorageTool", "format", how,
		"--cluster-id", kafkaClusterID, "--config", properties)
	cmd := exec.Command(java, args...)
	cmd.SysProcAttr = process.Attr(nil, syscall.SIGKILL)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Start(cmd); err != nil {
		return fmt.Errorf("start kafka's storage tool: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("format kafka's storage: %w\n%s", err, out.String())
	}
	return nil
}

// apiVersions asks a broker what it speaks: key 18, version 0, correlation id 1, no client id, behind a length.
var apiVersions = []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}

// askKafka returns nil if the broker answers. It listens early but answers no client before it has joined its cluster.
func askKafka(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaPause)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(apiVersions); err != nil {
		return err
	}
	var answer [10]byte // length, correlation id, error code
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("read kafka's answer: %w", err)
	}
	if code := binary.BigEndian.Uint16(answer[8:]); code != 0 {
		return fmt.Errorf("kafka answered with error %d", code)
	}
	return nil
}
