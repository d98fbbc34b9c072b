package devstack

import (
	"context"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// KafkaConfig says how the in-process Kafka runs.
type KafkaConfig struct {
	DataDir    string // where topics, messages, groups and offsets live over a restart; "" keeps them in memory
	Port       int    // on 127.0.0.1; 0 takes a free one
	SyncWrites bool   // fsync every write: survives a power cut, not only the process's end, and is much slower
}

// Kafka is an in-process stand-in for one Kafka broker. It speaks the protocol for producers, groups and admins; there is no
// replication.
type Kafka struct{ cluster *kfake.Cluster }

// StartKafka starts the broker. It fails when the port is taken or the data cannot be read. Topics are made by clients, as
// on the real one.
func StartKafka(ctx context.Context, config KafkaConfig, log *zap.Logger) (*Kafka, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.WithLogger(kafkaLog{log.Named("kfake").Sugar()})}
	if config.Port != 0 {
		options = append(options, kfake.Ports(config.Port))
	}
	if config.DataDir != "" {
		if err := os.MkdirAll(config.DataDir, 0o750); err != nil {
			return nil, fmt.Errorf("start kafka: %w", err)
		}
		options = append(options, kfake.DataDir(config.DataDir))
	}
	if config.SyncWrites {
		options = append(options, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	return &Kafka{cluster}, nil
}

// Addrs returns the addresses that clients connect to.
func (k *Kafka) Addrs() []string { return k.cluster.ListenAddrs() }

// Close stops the broker and writes what is left to the data directory.
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
