package kafka

import (
	"testing"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/event"
)

func TestAdminCompare(t *testing.T) {
	t.Parallel()
	a := &Admin{config: Config{Partitions: 2, Replication: 3, MinISR: 2}}
	for name, c := range map[string]struct {
		setting    string
		got        string
		partitions int
		replicas   int
		danger     bool
	}{
		"fewer_partitions":     {"partitions", "", 1, 3, false},
		"more_partitions":      {"partitions", "", 4, 3, false},
		"fewer_replicas":       {"replication", "", 2, 2, true},
		"more_replicas":        {"replication", "", 2, 4, false},
		"lower_min_isr":        {"min.insync.replicas", "1", 2, 3, true},
		"higher_min_isr":       {"min.insync.replicas", "3", 2, 3, false},
		"invalid_min_isr":      {"min.insync.replicas", "", 2, 3, true},
		"unclean_election":     {"unclean.leader.election.enable", "true", 2, 3, true},
		"other_retention":      {"retention.ms", "1", 2, 3, false},
		"compaction":           {"cleanup.policy", "compact,delete", 2, 3, true},
		"empty_cleanup_policy": {"cleanup.policy", "", 2, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := &sarama.TopicMetadata{Name: event.TopicRequested}
			for i := range c.partitions {
				p := &sarama.PartitionMetadata{Replicas: make([]int32, 3)}
				if i == 0 || c.replicas > 3 { // a topic has as few replicas as its partition with the fewest
					p.Replicas = make([]int32, c.replicas)
				}
				topic.Partitions = append(topic.Partitions, p)
			}
			found := a.compare(topic, []sarama.ConfigEntry{{Name: c.setting, Value: c.got}})
			if len(found) != 1 || found[0].Setting != c.setting || found[0].Danger != c.danger {
				t.Errorf("got %+v, want one difference with danger %t", found, c.danger)
			}
		})
	}
}
