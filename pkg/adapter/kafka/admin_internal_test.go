package kafka

import (
	"testing"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/event"
)

func TestOnlyLessThanConfiguredIsDangerous(t *testing.T) {
	t.Parallel()
	a := &Admin{config: Config{Partitions: 2, Replication: 3, MinISR: 2}}
	for name, c := range map[string]struct {
		setting    string
		got        string
		partitions int
		replicas   int
		danger     bool
	}{
		"fewer partitions":         {"partitions", "", 1, 3, false},
		"more partitions":          {"partitions", "", 4, 3, false},
		"fewer replicas":           {"replication", "", 2, 2, true},
		"more replicas":            {"replication", "", 2, 4, false},
		"fewer in sync":            {"min.insync.replicas", "1", 2, 3, true},
		"more in sync":             {"min.insync.replicas", "3", 2, 3, false},
		"unreadable":               {"min.insync.replicas", "", 2, 3, true},
		"unclean election":         {"unclean.leader.election.enable", "true", 2, 3, true},
		"another retention":        {"retention.ms", "1", 2, 3, false},
		"compaction":               {"cleanup.policy", "compact,delete", 2, 3, true},
		"a policy without cleanup": {"cleanup.policy", "", 2, 3, false},
	} {
		topic := &sarama.TopicMetadata{Name: event.TopicRequested}
		for i := range c.partitions {
			p := &sarama.PartitionMetadata{Replicas: make([]int32, 3)}
			if i == 0 {
				p.Replicas = make([]int32, c.replicas)
			}
			if c.replicas > 3 {
				p.Replicas = make([]int32, c.replicas)
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		found := a.compare(topic, []sarama.ConfigEntry{{Name: c.setting, Value: c.got}})
		if len(found) != 1 || found[0].Setting != c.setting || found[0].Danger != c.danger {
			t.Errorf("%s: got %+v, want one difference, danger %t", name, found, c.danger)
		}
	}
}
