package kafkatest

import (
	"bytes"
	"testing"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

// undecodable sends records that cannot be decoded, with a valid message between and after them. It expects the former on
// the dead-letter topic and the latter handled.
func undecodable(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	valid := requests(2)
	large := bytes.Repeat([]byte{0xfe}, 900_000)
	wrongBody := event.Message{ID: "4c7a8d0e-6b2f-4d55-9b6f-0d4d7f0f6a11", Type: event.TypeImageRequested, Version: 1}.Headers()
	produce(t, config, record(config, "7", large, nil))
	produce(t, config, record(config, valid[0].Key, valid[0].Body, valid[0].Headers()))
	produce(t, config, record(config, "8", []byte("no JSON"), wrongBody))
	produce(t, config, record(config, valid[1].Key, valid[1].Body, valid[1].Headers()))
	seen := newRecorder()
	checking := options("undecodable")
	checking.Check = func(m event.Message) error {
		_, err := event.Decode[event.ImageRequested](m)
		return err
	}
	join(t, config, checking, seen.handle)
	eventually(t, "the valid messages are done", func() bool { return seen.all(valid) })
	dead := records(t, config, event.TopicDead, 2)
	ids := make(map[string]bool)
	for _, r := range dead {
		m, body := decodeDead(t, r)
		ids[m.ID] = true
		if body.Topic != config.Name(event.TopicRequested) || body.Partition != 0 || body.Reason == "" {
			t.Errorf("coordinates: got %s/%d because %q, want the topic of the requests", body.Topic, body.Partition, body.Reason)
		}
		switch body.Offset {
		case 0:
			if !body.Truncated || len(body.Payload) != event.MaxPayload || m.Key != "7" {
				t.Errorf("the large record: got %d bytes, truncated %t, key %q", len(body.Payload), body.Truncated, m.Key)
			}
		case 2:
			if string(body.Payload) != "no JSON" || body.Truncated || body.Headers[event.HeaderID] != wrongBody[event.HeaderID] {
				t.Errorf("the record without JSON: got payload %q, headers %v", body.Payload, body.Headers)
			}
		default:
			t.Errorf("offset: got %d, want 0 or 2", body.Offset)
		}
	}
	if len(ids) != 2 {
		t.Errorf("event ids of the dead letters: got %v, want two", ids)
	}
	eventually(t, "all is committed", func() bool { return offsets(t, config, "undecodable")[0] == 4 })
}

// decodeDead decodes a dead letter.
func decodeDead(t *testing.T, r *sarama.ConsumerMessage) (event.Message, event.Undecodable) {
	t.Helper()
	got := make(map[string]string)
	for _, h := range r.Headers {
		got[string(h.Key)] = string(h.Value)
	}
	m, err := event.FromRecord(event.TopicDead, r.Key, r.Value, got)
	if err != nil {
		t.Fatalf("decode dead letter: %v", err)
	}
	body, err := event.Decode[event.Undecodable](m)
	if err != nil {
		t.Fatalf("decode body of dead letter: %v", err)
	}
	return m, body
}

// record returns a raw record for the topic of the requests.
func record(config kafka.Config, key string, body []byte, headers map[string]string) *sarama.ProducerMessage {
	r := &sarama.ProducerMessage{
		Topic: config.Name(event.TopicRequested), Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(body),
	}
	for name, value := range headers {
		r.Headers = append(r.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
	}
	return r
}

// produce sends a raw record, without the encoding of package kafka.
func produce(t *testing.T, config kafka.Config, r *sarama.ProducerMessage) {
	t.Helper()
	settings := sarama.NewConfig()
	settings.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(config.Brokers, settings)
	if err != nil {
		t.Fatalf("make raw producer: %v", err)
	}
	defer func() { _ = producer.Close() }()
	if _, _, err := producer.SendMessage(r); err != nil {
		t.Fatalf("produce raw record: %v", err)
	}
}
