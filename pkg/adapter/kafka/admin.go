package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// How long Kafka keeps messages. The rescuer republishes overdue jobs from the database, so the retention of a job only
// has to exceed an outage of the workers. Dead letters wait for an operator.
const (
	retention     = 7 * 24 * time.Hour
	deadRetention = 30 * 24 * time.Hour

	adminTimeout  = 10 * time.Second // of each request to a broker
	metadataRetry = 100 * time.Millisecond
)

// Admin creates and checks the topics. It connects for each call, since only setup, starts and probes use it.
type Admin struct {
	config Config
	base   *sarama.Config
}

// NewAdmin returns an Admin. It reads the TLS files and does not connect. It fails if a setting is not valid.
func NewAdmin(config Config) (*Admin, error) {
	base, err := config.saramaConfig("admin", func(s *sarama.Config) {
		shortTimeouts(s)
		s.Admin.Timeout = adminTimeout
		s.Metadata.Full = true // sarama's admin finds the controller only with it
	})
	if err != nil {
		return nil, err
	}
	return &Admin{config: config, base: base}, nil
}

// shortTimeouts sets short timeouts and one retry.
func shortTimeouts(s *sarama.Config) {
	s.Net.DialTimeout = dialTimeout
	s.Net.ReadTimeout = adminTimeout
	s.Net.WriteTimeout = adminTimeout
	s.Metadata.Retry.Max = 1
}

// Difference is one setting in which a topic differs from the configuration.
type Difference struct {
	Topic   string
	Setting string
	Want    string
	Got     string
	Danger  bool // messages can be lost, or cannot be sent
}

// Missing reports whether the broker that answered does not know the topic. Shortly after a topic was created, not every
// broker knows it.
func (d Difference) Missing() bool { return d.Setting == existence }

// existence is the value of Difference.Setting for a missing topic.
const existence = "existence"

// String returns the difference in one line.
func (d Difference) String() string {
	return fmt.Sprintf("topic %s: %s is %s, configured is %s", d.Topic, d.Setting, d.Got, d.Want)
}

// Ping returns nil if one of the brokers accepts the connection and the login, else fault.Unavailable. It does not check
// the topics.
func (a *Admin) Ping(ctx context.Context) error {
	return a.withSettings(ctx, func(settings *sarama.Config) error {
		var last error
		for _, address := range a.config.Brokers {
			broker := sarama.NewBroker(address)
			if err := broker.Open(settings); err != nil {
				return err
			}
			ok, err := broker.Connected()
			_ = broker.Close()
			if ok {
				return nil
			}
			last = err
		}
		return last
	})
}

// EnsureTopics creates the topics that are missing and waits until every partition has a leader, or ctx ends. It does not
// change existing topics; see Check. It is idempotent and may be called concurrently. Its error is fault.Unavailable.
func (a *Admin) EnsureTopics(ctx context.Context) error {
	return a.withAdmin(ctx, func(admin sarama.ClusterAdmin) error {
		for _, topic := range event.Topics() {
			err := admin.CreateTopic(a.config.Name(topic), a.detail(topic), false)
			if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
				return fmt.Errorf("create topic %s: %w", a.config.Name(topic), err)
			}
		}
		for {
			waiting, err := a.notReady(admin)
			if err == nil && waiting == "" {
				return nil
			}
			if !backoff.Sleep(ctx, metadataRetry) {
				return errors.Join(fmt.Errorf("wait for leaders of topic %s: %w", waiting, context.Cause(ctx)), err)
			}
		}
	})
}

func (a *Admin) detail(topic string) *sarama.TopicDetail {
	text := func(s string) *string { return &s }
	kept := retention
	if topic == event.TopicDead {
		kept = deadRetention
	}
	entries := map[string]*string{
		"cleanup.policy":      text("delete"),
		"retention.ms":        text(strconv.FormatInt(kept.Milliseconds(), 10)),
		"min.insync.replicas": text(strconv.Itoa(a.config.MinISR)),
	}
	if a.config.Replication > 1 { // with one replica there is no election
		entries["unclean.leader.election.enable"] = text("false")
	}
	return &sarama.TopicDetail{
		NumPartitions: int32(a.config.Partitions), ReplicationFactor: int16(a.config.Replication), ConfigEntries: entries,
	}
}

// notReady returns the name of a topic that is missing or has a partition without a leader, or "".
func (a *Admin) notReady(admin sarama.ClusterAdmin) (string, error) {
	names := a.names()
	described, err := admin.DescribeTopics(names)
	if err != nil {
		return names[0], err
	}
	for _, t := range described {
		if !errors.Is(t.Err, sarama.ErrNoError) || len(t.Partitions) == 0 {
			return t.Name, nil
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 || !errors.Is(p.Err, sarama.ErrNoError) {
				return t.Name, nil
			}
		}
	}
	return "", nil
}

// TopicsReady returns nil if every topic exists and every partition has a leader, else fault.Unavailable. It creates
// nothing and needs only the permission to describe the topics.
func (a *Admin) TopicsReady(ctx context.Context) error {
	var waiting string
	err := a.withAdmin(ctx, func(admin sarama.ClusterAdmin) (err error) {
		waiting, err = a.notReady(admin)
		return err
	})
	if err == nil && waiting != "" {
		return fault.New(fault.Unavailable, codeNoTopic, "the topic "+waiting+" is missing or has no leader")
	}
	return err
}

func (a *Admin) names() []string {
	var names []string
	for _, topic := range event.Topics() {
		names = append(names, a.config.Name(topic))
	}
	return names
}

// Check compares the topics with the configuration and returns every difference. Its error is fault.Unavailable.
func (a *Admin) Check(ctx context.Context) ([]Difference, error) {
	var found []Difference
	err := a.withAdmin(ctx, func(admin sarama.ClusterAdmin) error {
		described, err := admin.DescribeTopics(a.names())
		if err != nil {
			return fmt.Errorf("describe topics: %w", err)
		}
		for _, t := range described {
			if errors.Is(t.Err, sarama.ErrUnknownTopicOrPartition) {
				found = append(found, Difference{Topic: t.Name, Setting: existence, Want: "there", Got: "missing", Danger: true})
				continue
			}
			settings, err := describe(admin, t.Name)
			if err != nil {
				return fmt.Errorf("describe settings of topic %s: %w", t.Name, err)
			}
			found = append(found, a.compare(t, settings)...)
		}
		return nil
	})
	return found, err
}

// describe returns the settings of a topic.
func describe(admin sarama.ClusterAdmin, topic string) ([]sarama.ConfigEntry, error) {
	results, err := admin.DescribeConfigs(
		[]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic}}, sarama.DescribeConfigsOptions{})
	if err != nil {
		return nil, err
	}
	var settings []sarama.ConfigEntry
	for _, r := range results {
		if r.ErrorCode != sarama.ErrNoError {
			return nil, fmt.Errorf("%w: %s", r.ErrorCode, r.ErrorMsg)
		}
		settings = append(settings, r.Configs...)
	}
	return settings, nil
}

// compare returns the differences of one topic.
func (a *Admin) compare(t *sarama.TopicMetadata, settings []sarama.ConfigEntry) []Difference {
	replicas := a.config.Replication
	if len(t.Partitions) > 0 { // the replicas of the partition with the fewest
		replicas = len(slices.MinFunc(t.Partitions, func(p, q *sarama.PartitionMetadata) int {
			return len(p.Replicas) - len(q.Replicas)
		}).Replicas)
	}
	var found []Difference
	add := func(setting, want, got string, danger bool) {
		if want != got {
			found = append(found, Difference{Topic: t.Name, Setting: setting, Want: want, Got: got, Danger: danger})
		}
	}
	add("partitions", strconv.Itoa(a.config.Partitions), strconv.Itoa(len(t.Partitions)), false)
	add("replication", strconv.Itoa(a.config.Replication), strconv.Itoa(replicas), replicas < a.config.Replication)
	configured := a.detail(t.Name[len(a.config.TopicPrefix):]).ConfigEntries
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		i := slices.IndexFunc(settings, func(e sarama.ConfigEntry) bool { return e.Name == name })
		if i < 0 {
			continue // this broker does not know the setting
		}
		add(name, *configured[name], settings[i].Value, dangerous(name, *configured[name], settings[i].Value))
	}
	return found
}

// dangerous reports whether a topic's setting allows acknowledged messages to be lost, or deleted before they are read. A
// stricter setting than the configured one is not dangerous.
func dangerous(name, want, got string) bool {
	switch name {
	case "min.insync.replicas":
		configured, _ := strconv.Atoi(want)
		actual, err := strconv.Atoi(got)
		return err != nil || actual < configured
	case "unclean.leader.election.enable":
		return got != "false"
	case "cleanup.policy": // compaction keeps only one message of each product
		return strings.Contains(got, "compact")
	default:
		return false
	}
}

// withAdmin runs f with an admin client that is closed when f returns.
func (a *Admin) withAdmin(ctx context.Context, f func(sarama.ClusterAdmin) error) error {
	return a.withSettings(ctx, func(settings *sarama.Config) error {
		admin, err := sarama.NewClusterAdmin(a.config.Brokers, settings)
		if err != nil {
			return fmt.Errorf("connect admin: %w", err)
		}
		defer func() { _ = admin.Close() }()
		return f(admin)
	})
}

// withSettings runs f with settings whose connections are closed when ctx ends or f returns, and classifies its error.
func (a *Admin) withSettings(ctx context.Context, f func(*sarama.Config) error) error {
	conns := newConnTracker(nil, dialTimeout)
	defer conns.closeAll()
	defer context.AfterFunc(ctx, conns.closeAll)()
	if err := f(withDialer(a.base, conns)); err != nil {
		return unavailable(withCause(ctx, err))
	}
	return nil
}
