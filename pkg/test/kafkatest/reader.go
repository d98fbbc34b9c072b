package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

// readAll returns the records that a reader reads from a topic.
func readAll(t *testing.T, config kafka.Config, topic string) []kafka.Record {
	t.Helper()
	r, err := kafka.NewReader(config)
	if err != nil {
		t.Fatalf("make reader: %v", err)
	}
	var found []kafka.Record
	if err := r.Read(t.Context(), topic, func(record kafka.Record) error {
		found = append(found, record)
		return nil
	}); err != nil {
		t.Fatalf("read: %v", err)
	}
	return found
}

// readsToTheEnd reads the same records of several partitions twice: a reader consumes nothing.
func readsToTheEnd(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	if found := readAll(t, config, event.TopicRequested); len(found) != 0 {
		t.Errorf("an empty topic has %d records", len(found))
	}
	before, messages := time.Now().Add(-time.Second), requests(50)
	publish(t, config, messages)
	for range 2 {
		seen := make(map[string]bool)
		next := make(map[int32]int64)
		for _, r := range readAll(t, config, event.TopicRequested) {
			m, err := event.FromRecord(event.TopicRequested, r.Key, r.Value, r.Headers)
			if err != nil {
				t.Fatalf("read record: %v", err)
			}
			if r.Offset != next[r.Partition] || r.Topic != config.Name(event.TopicRequested) || r.Time.Before(before) {
				t.Errorf("%s/%d/%d of %v, want offset %d", r.Topic, r.Partition, r.Offset, r.Time, next[r.Partition])
			}
			next[r.Partition]++
			seen[m.ID] = true
		}
		if len(seen) != len(messages) || len(next) < 2 {
			t.Errorf("read %d messages of %d partitions, want %d of several", len(seen), len(next), len(messages))
		}
	}
}

// readStopsAtItsEnd tests that records added during a read are not read, and that an error of the callback ends the read.
func readStopsAtItsEnd(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	publish(t, config, requests(3))
	r, err := kafka.NewReader(config)
	if err != nil {
		t.Fatalf("make reader: %v", err)
	}
	count := 0
	if err := r.Read(t.Context(), event.TopicRequested, func(kafka.Record) error {
		if count++; count == 1 {
			publish(t, config, requests(3))
		}
		return nil
	}); err != nil || count != 3 {
		t.Errorf("read %d records and %v, want the 3 records that existed at the start", count, err)
	}
	count = 0
	err = r.Read(t.Context(), event.TopicRequested, func(kafka.Record) error { count++; return errRetry })
	if !errors.Is(err, errRetry) || count != 1 {
		t.Errorf("got %v after %d records, want the error of the first", err, count)
	}
	ended, end := context.WithCancel(t.Context())
	err = r.Read(ended, event.TopicRequested, func(kafka.Record) error { end(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
}

// resends sends a record again with the same bytes, decodable or not.
func resends(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	p, err := kafka.NewPublisher(config, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatalf("make publisher: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	headers := map[string]string{"their-own": "\xff", event.HeaderVersion: "newest"}
	for _, key := range []string{"7", ""} {
		produce(t, config, record(config, key, []byte{0xfe, 0}, headers))
	}
	found := readAll(t, config, event.TopicRequested)
	for _, r := range found {
		if err := p.Resend(t.Context(), r); err != nil {
			t.Fatalf("resend: %v", err)
		}
	}
	all := readAll(t, config, event.TopicRequested)
	if len(found) != 2 || len(all) != 4 {
		t.Fatalf("%d records, then %d, want 2 and 4", len(found), len(all))
	}
	for i, want := range found {
		if got := all[2+i]; !bytes.Equal(got.Value, want.Value) || !bytes.Equal(got.Key, want.Key) ||
			!maps.Equal(got.Headers, headers) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
