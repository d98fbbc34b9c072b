package kafkatest

import (
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
)

// passed returns what the workers have passed over, for products 1 to n.
func passed(t *testing.T, config kafka.Config, now time.Time, n int) []time.Time {
	t.Helper()
	p, err := kafka.NewProgress(config)
	if err != nil {
		t.Fatalf("make progress: %v", err)
	}
	of, err := p.Passed(t.Context(), now)
	if err != nil {
		t.Fatalf("read progress: %v", err)
	}
	times := make([]time.Time, n)
	for i := range times {
		times[i] = of(catalog.ProductID(i + 1))
	}
	return times
}

// wantPassed reports products whose time is not that of the n-th record of their partition, from 0, less a minute.
func wantPassed(t *testing.T, config kafka.Config, when string, n int, all []*sarama.ConsumerMessage, got []time.Time) {
	t.Helper()
	first := map[int32]time.Time{} // by partition
	for _, r := range all {
		if r.Offset == int64(n) {
			first[r.Partition] = r.Timestamp
		}
	}
	if len(first) != config.Partitions {
		t.Fatalf("%s: record %d exists in %d of %d partitions", when, n, len(first), config.Partitions)
	}
	for _, r := range all {
		id, err := strconv.Atoi(string(r.Key))
		if err != nil {
			t.Fatal(err)
		}
		if want := first[r.Partition].Add(-time.Minute); !got[id-1].Equal(want) {
			t.Errorf("%s: product %d: got %s, want %s", when, id, got[id-1], want)
		}
	}
}

// progressOfWorkers tests that Passed follows the committed offsets, and the loss of offsets and of records.
func progressOfWorkers(t *testing.T, config kafka.Config) {
	const n = 60
	ensureTopics(t, config)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	wantNow := func(when string) {
		t.Helper()
		for i, got := range passed(t, config, now, n) {
			if !got.Equal(now) {
				t.Errorf("%s: product %d: got %s, want now", when, i+1, got)
			}
		}
	}
	wantNow("an empty topic")
	messages := requests(n)
	publish(t, config, messages)
	all := records(t, config, event.TopicRequested, n)
	wantPassed(t, config, "without an offset", 0, all, passed(t, config, now, n))

	seen := newRecorder()
	m := join(t, config, options(kafka.GroupWorkers), seen.handle)
	eventually(t, "every message is done", func() bool { return seen.all(messages) }) // the group exists
	eventually(t, "all is committed", func() bool { return total(offsets(t, config, kafka.GroupWorkers)) == n })
	m.stop(t)
	wantNow("everything is done")
	committed := offsets(t, config, kafka.GroupWorkers)
	publish(t, config, requests(n))
	all = records(t, config, event.TopicRequested, 2*n)
	for partition, offset := range committed { // of each partition alone: their offsets differ
		var ofPartition []*sarama.ConsumerMessage
		for _, r := range all {
			if r.Partition == partition {
				ofPartition = append(ofPartition, r)
			}
		}
		single := config
		single.Partitions = 1
		wantPassed(t, single, "a second batch waits", int(offset), ofPartition, passed(t, config, now, n))
	}

	admin, err := sarama.NewClusterAdmin(config.Brokers, sarama.NewConfig())
	if err != nil {
		t.Fatalf("make admin: %v", err)
	}
	defer func() { _ = admin.Close() }()
	topic := config.Name(event.TopicRequested)
	ends := map[int32]int64{}
	for partition, offset := range committed {
		ends[partition] = 2 * offset // both batches have the same keys
	}
	if err := admin.DeleteRecords(topic, ends); err != nil {
		t.Fatalf("delete records: %v", err)
	}
	wantNow("the records are lost")
	publish(t, config, requests(n))
	if err := admin.DeleteConsumerGroup(config.Name(kafka.GroupWorkers)); err != nil {
		t.Fatalf("delete group: %v", err)
	}
	for i, got := range passed(t, config, now, n) {
		if got.Equal(now) {
			t.Errorf("the offsets are lost: product %d: got now, and its record will be read from the oldest on", i+1)
		}
	}
}
