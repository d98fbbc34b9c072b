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

// How long Kafka keeps messages. Requests are repeated from the database by the sweeper, so their retention only has to
// outlive an outage of the workers; dead records wait for a person.
const (
	retention     = 7 * 24 * time.Hour
	deadRetention = 30 * 24 * time.Hour

	adminTimeout  = 10 * time.Second // per request
	metadataRetry = 100 * time.Millisecond
)

// Admin makes and checks the topics. It connects anew for each call: it is used at the start and by probes.
type Admin struct {
	config Config
	base   *sarama.Config
}

// NewAdmin returns an admin. It reads the TLS files and connects to nothing.
func NewAdmin(config Config) (*Admin, error) {
	base, err := config.adminConfig()
	if err != nil {
		return nil, err
	}
	base.Admin.Timeout = adminTimeout
	base.Metadata.Full = true // sarama's admin learns who the controller is from nothing less
	if err := base.Validate(); err != nil {
		return nil, fmt.Errorf("check admin settings: %w", err)
	}
	return &Admin{config: config, base: base}, nil
}

// adminConfig is saramaConfig for who asks once and wants to know soon.
func (c Config) adminConfig() (*sarama.Config, error) {
	base, err := c.saramaConfig()
	if err != nil {
		return nil, err
	}
	base.Net.DialTimeout = dialTimeout
	base.Net.ReadTimeout = adminTimeout
	base.Net.WriteTimeout = adminTimeout
	base.Metadata.Retry.Max = 1
	return base, nil
}

// Difference is one way in which an existing topic is not what the configuration says.
type Difference struct {
	Topic   string
	Setting string
	Want    string
	Got     string
	Danger  bool // messages can be lost, or cannot be sent; else it is only worth a warning
}

// Missing reports whether the broker that was asked does not know the topic at all. Right after the topic was made by
// another one, that only means: not yet.
func (d Difference) Missing() bool { return d.Setting == existence }

// existence is the setting of a topic that is not there.
const existence = "existence"

// String returns the difference as one line of a log.
func (d Difference) String() string {
	return fmt.Sprintf("topic %s: %s is %s, configured is %s", d.Topic, d.Setting, d.Got, d.Want)
}

// Ping asks for any broker that lets us in. It says nothing about topics.
func (a *Admin) Ping(ctx context.Context) error {
	return a.with(ctx, func(settings *sarama.Config) error {
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

// EnsureTopics makes the topics that are not there and waits until each has its leaders. Existing topics stay as they are;
// see Check. Any number of processes may call it at once and again.
func (a *Admin) EnsureTopics(ctx context.Context) error {
	return a.withAdmin(ctx, func(admin sarama.ClusterAdmin) error {
		for _, topic := range event.Topics() {
			err := admin.CreateTopic(a.config.Name(topic), a.detail(topic), false)
			if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
				return fmt.Errorf("create topic %s: %w", a.config.Name(topic), err)
			}
		}
		for {
			waiting, err := a.leaderless(admin)
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
	keep := retention
	if topic == event.TopicDead {
		keep = deadRetention
	}
	entries := map[string]*string{
		"cleanup.policy":      text("delete"),
		"retention.ms":        text(strconv.FormatInt(keep.Milliseconds(), 10)),
		"min.insync.replicas": text(strconv.Itoa(a.config.MinISR)),
	}
	if a.config.Replication > 1 { // one replica elects nobody
		entries["unclean.leader.election.enable"] = text("false")
	}
	return &sarama.TopicDetail{
		NumPartitions: int32(a.config.Partitions), ReplicationFactor: int16(a.config.Replication), ConfigEntries: entries,
	}
}

// leaderless returns a topic that is not known everywhere yet, or "".
func (a *Admin) leaderless(admin sarama.ClusterAdmin) (string, error) {
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

// TopicsReady returns nil if every topic is there and has its leaders, else fault.Unavailable. It makes nothing; to see the
// topics is all the right that it needs.
func (a *Admin) TopicsReady(ctx context.Context) error {
	var waiting string
	err := a.withAdmin(ctx, func(admin sarama.ClusterAdmin) (err error) {
		waiting, err = a.leaderless(admin)
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

// Check compares the topics with the configuration and returns every difference.
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

// compare returns how one topic differs.
func (a *Admin) compare(t *sarama.TopicMetadata, settings []sarama.ConfigEntry) []Difference {
	replicas := a.config.Replication
	if len(t.Partitions) > 0 { // of the partition that has the fewest
		replicas = len(slices.MinFunc(t.Partitions, func(p, q *sarama.PartitionMetadata) int {
			return len(p.Replicas) - len(q.Replicas)
		}).Replicas)
	}
	var found []Difference
	differ := func(setting, want, got string, danger bool) {
		if want != got {
			found = append(found, Difference{Topic: t.Name, Setting: setting, Want: want, Got: got, Danger: danger})
		}
	}
	differ("partitions", strconv.Itoa(a.config.Partitions), strconv.Itoa(len(t.Partitions)), false)
	differ("replication", strconv.Itoa(a.config.Replication), strconv.Itoa(replicas), replicas < a.config.Replication)
	wanted := a.detail(t.Name[len(a.config.TopicPrefix):]).ConfigEntries
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		i := slices.IndexFunc(settings, func(e sarama.ConfigEntry) bool { return e.Name == name })
		if i < 0 {
			continue // this broker does not know the setting
		}
		differ(name, *wanted[name], settings[i].Value, dangerous(name, *wanted[name], settings[i].Value))
	}
	return found
}

// dangerous reports whether a topic's setting lets acknowledged messages be lost, or removed before they are read. To be
// stricter than configured is only different.
func dangerous(name, want, got string) bool {
	switch name {
	case "min.insync.replicas":
		configured, _ := strconv.Atoi(want)
		there, err := strconv.Atoi(got)
		return err != nil || there < configured
	case "unclean.leader.election.enable":
		return got != "false"
	case "cleanup.policy": // compaction keeps one message of each product
		return strings.Contains(got, "compact")
	default:
		return false
	}
}

// withAdmin runs f with an admin client that lives until f returns.
func (a *Admin) withAdmin(ctx context.Context, f func(sarama.ClusterAdmin) error) error {
	return a.with(ctx, func(settings *sarama.Config) error {
		admin, err := sarama.NewClusterAdmin(a.config.Brokers, settings)
		if err != nil {
			return fmt.Errorf("connect admin: %w", err)
		}
		defer func() { _ = admin.Close() }()
		return f(admin)
	})
}

// with runs f with settings whose connections end with ctx, and classifies its error.
func (a *Admin) with(ctx context.Context, f func(*sarama.Config) error) error {
	w := newConnTracker(nil, dialTimeout)
	defer w.cut()
	defer context.AfterFunc(ctx, w.cut)()
	if err := f(withDialer(a.base, w)); err != nil {
		return unavailable(withCause(ctx, err))
	}
	return nil
}
