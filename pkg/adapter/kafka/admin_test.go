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

func TestAnAdminThatFindsNobodySaysSoInTime(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]string{"nobody listens": port.Addr(t), "nobody answers": blackHole(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := newAdmin(t, local([]string{addr}, ""))
			for what, ask := range map[string]func(context.Context) error{
				"ping":   admin.Ping,
				"ensure": admin.EnsureTopics,
				"ready":  admin.TopicsReady,
				"check":  func(ctx context.Context) error { _, err := admin.Check(ctx); return err },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				started := time.Now()
				if err := ask(ctx); !fault.Is(err, fault.Unavailable) {
					t.Errorf("%s: got %v, want unavailable", what, err)
				}
				if took := time.Since(started); took > 3*time.Second {
					t.Errorf("%s took %s, want little more than half a second", what, took)
				}
				cancel()
			}
		})
	}
}

func TestAPingIsContentWithOneOfManyBrokers(t *testing.T) {
	t.Parallel()
	_, config := cluster(t)
	config.Brokers = append([]string{port.Addr(t)}, config.Brokers...)
	if err := newAdmin(t, config).Ping(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestATopicThatCannotBeMadeIsNamed(t *testing.T) {
	t.Parallel()
	c, config := cluster(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: event.TopicChanged, Err: kerr.PolicyViolation, Count: -1})
	err := newAdmin(t, config).EnsureTopics(t.Context())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), event.TopicChanged) {
		t.Errorf("got %v, want the topic's name", err)
	}
}

func TestMakingTheTopicsWaitsForTheirLeaders(t *testing.T) {
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
		t.Errorf("without a leader: got %v, want the context's end and the topic's name", err)
	}
	electing.Remove()
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Errorf("with leaders: %v", err)
	}
}

func TestTopicsAreReadyWhenEachHasItsLeaders(t *testing.T) {
	t.Parallel()
	c, config := cluster(t, kfake.SeedTopics(1, event.TopicRequested, event.TopicChanged))
	admin := newAdmin(t, config)
	if err := admin.TopicsReady(t.Context()); !fault.Is(err, fault.Unavailable) ||
		!strings.Contains(err.Error(), event.TopicDead) {
		t.Errorf("a topic is missing: got %v, want unavailable, with its name", err)
	}
	if c.TopicInfo(event.TopicDead) != nil {
		t.Error("to look has made the topic")
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := admin.TopicsReady(t.Context()); err != nil {
		t.Errorf("all there: %v", err)
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: event.TopicChanged, Err: kerr.LeaderNotAvailable, Count: -1})
	if err := admin.TopicsReady(t.Context()); !fault.Is(err, fault.Unavailable) ||
		!strings.Contains(err.Error(), event.TopicChanged) {
		t.Errorf("without a leader: got %v, want unavailable, with the topic's name", err)
	}
}

func TestACheckThatCannotSeeIsAnError(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]kmsg.Key{"topics": kmsg.Metadata, "settings": kmsg.DescribeConfigs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, config := seeded(t)
			admin := newAdmin(t, config)
			c.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				if m, ok := r.(*kmsg.MetadataRequest); ok && m.Topics == nil {
					return nil, nil, false // the client's own first look
				}
				return nil, errors.New("drop the connection"), true
			})
			if found, err := admin.Check(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("got %v and %v, want unavailable", found, err)
			}
		})
	}
}

func TestSettingsThatMayNotBeSeenAreAnError(t *testing.T) {
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

func TestADifferenceReadsAsOneLine(t *testing.T) {
	t.Parallel()
	d := kafka.Difference{Topic: "t", Setting: "partitions", Want: "24", Got: "6"}
	if got, want := d.String(), "topic t: partitions is 6, configured is 24"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// With several replicas a topic must not elect a leader that lacks acknowledged messages.
func TestAReplicatedTopicElectsNoUncleanLeader(t *testing.T) {
	t.Parallel()
	c, config := cluster(t, kfake.NumBrokers(3))
	config.Replication, config.MinISR = 3, 2
	asked := make(chan map[string]string, 1)
	c.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
		create, ok := r.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil, nil, false
		}
		settings := make(map[string]string)
		for _, s := range create.Topics[0].Configs {
			settings[s.Name] = *s.Value
		}
		asked <- settings
		return nil, errors.New("drop the connection"), true
	})
	_ = newAdmin(t, config).EnsureTopics(t.Context()) // this stand-in does not know the setting
	got := <-asked
	for name, want := range map[string]string{
		"unclean.leader.election.enable": "false", "min.insync.replicas": "2", "cleanup.policy": "delete",
		"retention.ms": "604800000",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}
