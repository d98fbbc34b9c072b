package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

func newAdmin(t *testing.T, config kafka.Config) *kafka.Admin {
	t.Helper()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	return admin
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	t.Run("unreachable_broker_is_reported_in_time", testAdminUnreachableBrokerIsReportedInTime)
	t.Run("ping_needs_one_broker", testAdminPingNeedsOneBroker)
	t.Run("failed_create_names_topic", testAdminFailedCreateNamesTopic)
	t.Run("ensure_topics_waits_for_leaders", testAdminEnsureTopicsWaitsForLeaders)
	t.Run("topics_ready_needs_all_leaders", testAdminTopicsReadyNeedsAllLeaders)
	t.Run("check_without_answer_is_error", testAdminCheckWithoutAnswerIsError)
	t.Run("check_without_permission_is_error", testAdminCheckWithoutPermissionIsError)
	t.Run("replicated_topic_disables_unclean_election", testAdminReplicatedTopicDisablesUncleanElection)
}

func testAdminUnreachableBrokerIsReportedInTime(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]string{"no_listener": port.Addr(t), "no_answer": blackHole(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := newAdmin(t, local([]string{addr}, ""))
			for operation, call := range map[string]func(context.Context) error{
				"ping":   admin.Ping,
				"ensure": admin.EnsureTopics,
				"ready":  admin.TopicsReady,
				"check":  func(ctx context.Context) error { _, err := admin.Check(ctx); return err },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				started := time.Now()
				if err := call(ctx); !fault.Is(err, fault.Unavailable) {
					t.Errorf("%s: got %v, want unavailable", operation, err)
				}
				if elapsed := time.Since(started); elapsed > 3*time.Second {
					t.Errorf("%s: elapsed %s, want little more than 500ms", operation, elapsed)
				}
				cancel()
			}
		})
	}
}

func testAdminPingNeedsOneBroker(t *testing.T) {
	t.Parallel()
	_, config := cluster(t)
	config.Brokers = append([]string{port.Addr(t)}, config.Brokers...)
	if err := newAdmin(t, config).Ping(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func testAdminFailedCreateNamesTopic(t *testing.T) {
	t.Parallel()
	c, config := cluster(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: event.TopicChanged, Err: kerr.PolicyViolation, Count: -1})
	err := newAdmin(t, config).EnsureTopics(t.Context())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), event.TopicChanged) {
		t.Errorf("got %v, want the topic's name", err)
	}
}

func testAdminEnsureTopicsWaitsForLeaders(t *testing.T) {
	t.Parallel()
	c, config := cluster(t)
	admin := newAdmin(t, config)
	electing := c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: event.TopicDead, Err: kerr.LeaderNotAvailable, Count: -1,
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err := admin.EnsureTopics(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), event.TopicDead) {
		t.Errorf("without a leader: got %v, want the context's error and the topic's name", err)
	}
	electing.Remove()
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Errorf("with leaders: %v", err)
	}
}

func testAdminTopicsReadyNeedsAllLeaders(t *testing.T) {
	t.Parallel()
	c, config := cluster(t, kfake.SeedTopics(1, event.TopicRequested, event.TopicChanged))
	admin := newAdmin(t, config)
	if err := admin.TopicsReady(t.Context()); !fault.Is(err, fault.Unavailable) ||
		!strings.Contains(err.Error(), event.TopicDead) {
		t.Errorf("with a missing topic: got %v, want unavailable with its name", err)
	}
	if c.TopicInfo(event.TopicDead) != nil {
		t.Error("TopicsReady has created the topic")
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := admin.TopicsReady(t.Context()); err != nil {
		t.Errorf("with all topics: %v", err)
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: event.TopicChanged, Err: kerr.LeaderNotAvailable, Count: -1})
	if err := admin.TopicsReady(t.Context()); !fault.Is(err, fault.Unavailable) ||
		!strings.Contains(err.Error(), event.TopicChanged) {
		t.Errorf("without a leader: got %v, want unavailable with the topic's name", err)
	}
}

func testAdminCheckWithoutAnswerIsError(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]kmsg.Key{"topics": kmsg.Metadata, "settings": kmsg.DescribeConfigs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, config := seeded(t)
			admin := newAdmin(t, config)
			c.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				if m, ok := r.(*kmsg.MetadataRequest); ok && m.Topics == nil {
					return nil, nil, false // the client's own request for metadata
				}
				return nil, errors.New("drop the connection"), true
			})
			if found, err := admin.Check(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("got %v and %v, want unavailable", found, err)
			}
		})
	}
}

func testAdminCheckWithoutPermissionIsError(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: event.TopicDead, Err: kerr.TopicAuthorizationFailed, Count: -1,
	})
	_, err := newAdmin(t, config).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), event.TopicDead) {
		t.Errorf("got %v, want an error that names the topic", err)
	}
}

func TestDifferenceString(t *testing.T) {
	t.Parallel()
	d := kafka.Difference{Topic: "t", Setting: "partitions", Want: "24", Got: "6"}
	if got, want := d.String(), "topic t: partitions is 6, configured is 24"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A leader that was not in sync lacks acknowledged messages.
func testAdminReplicatedTopicDisablesUncleanElection(t *testing.T) {
	t.Parallel()
	c, config := cluster(t, kfake.NumBrokers(3))
	config.Replication, config.MinISR = 3, 2
	requested := make(chan map[string]string, 1)
	c.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
		create, ok := r.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil, nil, false
		}
		settings := make(map[string]string)
		for _, s := range create.Topics[0].Configs {
			settings[s.Name] = *s.Value
		}
		requested <- settings
		return nil, errors.New("drop the connection"), true
	})
	_ = newAdmin(t, config).EnsureTopics(t.Context()) // kfake does not know the setting
	got := <-requested
	for name, want := range map[string]string{
		"unclean.leader.election.enable": "false", "min.insync.replicas": "2", "cleanup.policy": "delete",
		"retention.ms": "604800000",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}
