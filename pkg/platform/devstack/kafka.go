package devstack

import (
	"cmp"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// KafkaConfig configures the stand-in for Kafka.
type KafkaConfig struct {
	Addr    string // host:port, as clients will reach it; port 0 is any free one, empty is 127.0.0.1:0
	DataDir string // directory of topics, messages, groups and offsets; empty keeps them in memory
}

// Kafka is one broker in this process. It supports producers, consumer groups and admin clients. It creates topics only
// on an explicit request, and does not replicate.
type Kafka struct {
	cluster *kfake.Cluster
	addrs   []string // read once, because the cluster does not return them after Close
}

// StartKafka starts the broker. The caller closes it. It returns an error if the port is in use or the data cannot be
// read.
func StartKafka(cfg KafkaConfig, log *zap.Logger) (*Kafka, error) {
	addr := cmp.Or(cfg.Addr, anyPort)
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.WithLogger(kafkaLog{log.Named("kfake").Sugar()}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, addr) }),
	}
	if cfg.DataDir != "" {
		options = append(options, kfake.DataDir(cfg.DataDir))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return nil, fmt.Errorf("start kafka on %s: %w", addr, err)
	}
	return &Kafka{cluster: cluster, addrs: cluster.ListenAddrs()}, nil
}

// Addrs returns the addresses that clients connect to.
func (k *Kafka) Addrs() []string { return k.addrs }

// Close writes all data and stops the broker. A second call does nothing.
func (k *Kafka) Close() { k.cluster.Close() }

// kafkaLog logs the broker's messages to zap: errors and warnings as warnings, others at debug level.
type kafkaLog struct{ log *zap.SugaredLogger }

// Logf implements kfake.Logger.
func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelError || level == kfake.LogLevelWarn {
		l.log.Warnf(format, args...)
		return
	}
	l.log.Debugf(format, args...)
}
