package devstack

import (
	"fmt"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// KafkaConfig says where the stand-in for Kafka listens and what it keeps.
type KafkaConfig struct {
	Addr       string // host:port, as clients will reach it; port 0 is any free one, empty is 127.0.0.1:0
	DataDir    string // where topics, messages, groups and offsets outlive a restart; empty keeps them in memory
	SyncWrites bool   // fsync every write: survives a power cut, not only the process's end, and is much slower
}

// Kafka is one broker in this process. It speaks the protocol for producers, groups and admins and makes topics for whoever
// asks, never by itself; there is no replication.
type Kafka struct {
	cluster *kfake.Cluster
	addrs   []string // asked for once: the cluster answers nothing after its end
}

// StartKafka starts it. The caller closes it. It fails when the port is taken or what is kept cannot be read.
func StartKafka(cfg KafkaConfig, log *zap.Logger) (*Kafka, error) {
	if cfg.Addr == "" {
		cfg.Addr = anyPort
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.WithLogger(kafkaLog{log.Named("kfake").Sugar()}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, cfg.Addr) }),
	}
	if cfg.DataDir != "" {
		options = append(options, kfake.DataDir(cfg.DataDir))
	}
	if cfg.SyncWrites {
		options = append(options, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return nil, fmt.Errorf("start kafka on %s: %w", cfg.Addr, err)
	}
	return &Kafka{cluster: cluster, addrs: cluster.ListenAddrs()}, nil
}

// Addrs returns the addresses that clients connect to.
func (k *Kafka) Addrs() []string { return slices.Clone(k.addrs) }

// Close stops it, after it has written everything. It may be called again.
func (k *Kafka) Close() { k.cluster.Close() }

// kafkaLog sends the broker's lines to zap: what it calls errors and warnings as warnings, the rest for debugging.
type kafkaLog struct{ log *zap.SugaredLogger }

// Logf implements kfake.Logger.
func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelError || level == kfake.LogLevelWarn {
		l.log.Warnf(format, args...)
		return
	}
	l.log.Debugf(format, args...)
}
