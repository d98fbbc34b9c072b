package kafka_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

func newReader(t *testing.T, config kafka.Config) *kafka.Reader {
	t.Helper()
	r, err := kafka.NewReader(config)
	if err != nil {
		t.Fatalf("make reader: %v", err)
	}
	return r
}

// skip ignores a record.
func skip(kafka.Record) error { return nil }

func TestReader(t *testing.T) {
	t.Parallel()
	t.Run("unreachable_kafka_is_unavailable", testReaderUnreachableKafkaIsUnavailable)
	t.Run("silent_fetch_times_out", testReaderSilentFetchTimesOut)
	t.Run("deleted_records_are_reported", testReaderDeletedRecordsAreReported)
}

func testReaderUnreachableKafkaIsUnavailable(t *testing.T) {
	t.Parallel()
	_, withoutTopics := cluster(t)
	for name, config := range map[string]kafka.Config{
		"no listener": local([]string{port.Addr(t)}, ""), "missing topic": withoutTopics,
	} {
		if err := newReader(t, config).Read(t.Context(), event.TopicDead, skip); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := newReader(t, local([]string{blackHole(t)}, "")).Read(ctx, event.TopicDead, skip)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v, want unavailable with the cancellation", err)
	}
}

func testReaderSilentFetchTimesOut(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, _ := newPublisher(t, config)
	for _, err := range p.Publish(t.Context(), messages(2)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetched(req, 0), nil, true
	})
	r := newReader(t, config)
	r.Timeout(time.Second)
	err := r.Read(t.Context(), event.TopicRequested, skip)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no record arrived") {
		t.Errorf("got %v, want unavailable: no record arrived", err)
	}
}

func testReaderDeletedRecordsAreReported(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, _ := newPublisher(t, config)
	for _, err := range p.Publish(t.Context(), messages(2)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return fetched(req, kerr.OffsetOutOfRange.Code), nil, true
	})
	err := newReader(t, config).Read(t.Context(), event.TopicRequested, skip)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "records were deleted") {
		t.Errorf("got %v, want unavailable: records were deleted", err)
	}
}

// fetched returns the answer to a fetch, without records and with the error code for each partition.
func fetched(req kmsg.Request, code int16) kmsg.Response {
	fetch := req.(*kmsg.FetchRequest) //nolint:forcetypeassert // control functions get only requests of their key
	answer := fetch.ResponseKind().(*kmsg.FetchResponse)
	for _, topic := range fetch.Topics {
		t := kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			p := kmsg.NewFetchResponseTopicPartition()
			p.Partition, p.ErrorCode, p.HighWatermark = partition.Partition, code, 2
			t.Partitions = append(t.Partitions, p)
		}
		answer.Topics = append(answer.Topics, t)
	}
	return answer
}
