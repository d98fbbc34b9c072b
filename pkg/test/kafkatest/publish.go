package kafkatest

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/google/uuid"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

func roundTrip(t *testing.T, config kafka.Config) {
	want := requests(1)[0]
	want.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	publish(t, config, []event.Message{want})
	arrived := make(chan event.Message, 1)
	join(t, config, options("round-trip"), func(_ context.Context, m event.Message) error {
		arrived <- m
		return nil
	})
	got := await(t, "the message arrives", arrived)
	if got.Topic != want.Topic || got.Key != want.Key || string(got.Body) != string(want.Body) {
		t.Errorf("message: got %+v, want %+v", got, want)
	}
	if !maps.Equal(got.Headers(), want.Headers()) {
		t.Errorf("headers: got %v, want %v", got.Headers(), want.Headers())
	}
	if body, err := event.Decode[event.ImageRequested](got); err != nil || body.ImageID != 1 {
		t.Errorf("body: got %+v (%v), want image 1", body, err)
	}
}

func largeBatch(t *testing.T, config kafka.Config) {
	messages := requests(1000)
	publish(t, config, messages)
	seen := newRecorder()
	m := join(t, config, options("large-batch"), seen.handle)
	eventually(t, "every message of the batch arrives", func() bool { return seen.all(messages) })
	m.stop(t)
	for _, message := range messages {
		if got := seen.times(message); got != 1 {
			t.Fatalf("message %s arrived %d times, want once", message.ID, got)
		}
	}
}

func oneKeyOnePartition(t *testing.T, config kafka.Config) {
	var messages []event.Message
	for range 5 {
		messages = append(messages, requests(20)...)
	}
	publish(t, config, messages)
	partitionOf := make(map[string]int32)
	used := make(map[int32]bool)
	for _, r := range records(t, config, event.TopicRequested, len(messages)) {
		if p, ok := partitionOf[string(r.Key)]; ok && p != r.Partition {
			t.Fatalf("key %s is in partitions %d and %d", r.Key, p, r.Partition)
		}
		partitionOf[string(r.Key)], used[r.Partition] = r.Partition, true
	}
	if len(used) < 2 {
		t.Errorf("20 keys are in %d of %d partitions, want several partitions", len(used), config.Partitions)
	}
}

func tooLarge(t *testing.T, config kafka.Config) {
	publish(t, config, requests(1)) // waits until the broker is up
	messages := requests(3)
	messages[1] = event.New(uuid.NewString(), "2", event.ImageRequested{
		ProductID: 2, ImageID: 2, SourceURL: strings.Repeat("x", 2<<20), PipelineHash: "hash",
	})
	results := newPublisher(t, config).Publish(t.Context(), messages)
	if results[0] != nil || results[2] != nil {
		t.Errorf("the others: got %v and %v, want them acknowledged", results[0], results[2])
	}
	if !fault.Is(results[1], fault.Invalid) {
		t.Errorf("the large one: got %v, want invalid", results[1])
	}
	records(t, config, event.TopicRequested, 1+2)
}
