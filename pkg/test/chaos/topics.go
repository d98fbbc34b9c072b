package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// Topics and consumer groups, without the run's prefix.
const (
	topicRequested = "vitrine.images.requested"
	topicChanged   = "vitrine.products.changed"
	topicDead      = "vitrine.images.dead"
	topicBackfill  = "vitrine.images.backfill"
	groupWorkers   = "vitrine.workers"
	groupCache     = "vitrine.cache"
	groupBackfill  = "vitrine.workers.backfill"
)

func topics() []string { return []string{topicRequested, topicChanged, topicDead, topicBackfill} }

// kafka connects to the brokers.
func (s *System) kafka() (sarama.Client, error) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.ClientID = "chaos"
	config.Net.DialTimeout, config.Net.ReadTimeout = 3*time.Second, 10*time.Second
	config.Metadata.Full = true // the admin client finds the controller only in full metadata
	var addrs []string
	for _, n := range s.backends.Kafka {
		addrs = append(addrs, n.Addr)
	}
	client, err := sarama.NewClient(addrs, config)
	if err != nil {
		return nil, fmt.Errorf("connect to kafka: %w", err)
	}
	return client, nil
}

// removeTopics deletes the run's topics.
func (s *System) removeTopics() error {
	client, err := s.kafka()
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		_ = client.Close()
		return fmt.Errorf("open kafka admin client: %w", err)
	}
	defer admin.Close() // also closes client
	for _, group := range []string{groupWorkers, groupCache, groupBackfill} {
		_ = admin.DeleteConsumerGroup(s.topicPrefix() + group) // fails while a dead member has not timed out
	}
	for _, topic := range topics() {
		if err := admin.DeleteTopic(s.topicPrefix() + topic); err != nil {
			return fmt.Errorf("delete topic %s: %w", topic, err)
		}
	}
	return nil
}

// lag returns the number of records that the consumer groups have not committed yet.
func (s *System) lag() (int64, error) {
	client, err := s.kafka()
	if err != nil {
		return 0, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		_ = client.Close()
		return 0, fmt.Errorf("open kafka admin client: %w", err)
	}
	defer admin.Close() // also closes client
	var lag int64
	for topic, group := range map[string]string{
		topicRequested: groupWorkers, topicChanged: groupCache, topicBackfill: groupBackfill,
	} {
		topic, group = s.topicPrefix()+topic, s.topicPrefix()+group
		partitions, err := client.Partitions(topic)
		if err != nil {
			return 0, fmt.Errorf("list partitions: %w", err)
		}
		marked, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: partitions})
		if err != nil {
			return 0, fmt.Errorf("read offsets of %s: %w", group, err)
		}
		for _, partition := range partitions {
			end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
			if err != nil {
				return 0, fmt.Errorf("read end of %s: %w", topic, err)
			}
			block := marked.GetBlock(topic, partition)
			if block == nil || block.Err != sarama.ErrNoError {
				return 0, fmt.Errorf("no offset of %s for %s/%d", group, topic, partition)
			}
			lag += end - max(0, block.Offset)
		}
	}
	return lag, nil
}

// readEvents reads all records that are in the topics now.
func (s *System) readEvents(ctx context.Context) ([]Event, error) {
	client, err := s.kafka()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("read kafka: %w", err)
	}
	defer consumer.Close()
	var events []Event
	for _, topic := range topics() {
		partitions, err := client.Partitions(s.topicPrefix() + topic)
		if err != nil {
			return nil, fmt.Errorf("list partitions: %w", err)
		}
		for _, partition := range partitions {
			found, err := s.readPartition(ctx, client, consumer, topic, partition)
			if err != nil {
				return nil, err
			}
			events = append(events, found...)
		}
	}
	return events, nil
}

func (s *System) readPartition(
	ctx context.Context, client sarama.Client, consumer sarama.Consumer, topic string, partition int32,
) ([]Event, error) {
	name := s.topicPrefix() + topic
	end, err := client.GetOffset(name, partition, sarama.OffsetNewest)
	if err != nil {
		return nil, fmt.Errorf("read end of %s: %w", name, err)
	}
	if end == 0 {
		return nil, nil
	}
	claim, err := consumer.ConsumePartition(name, partition, sarama.OffsetOldest)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer claim.Close()
	var events []Event
	for {
		select {
		case record := <-claim.Messages():
			e, err := readEvent(topic, record)
			if err != nil {
				return nil, err
			}
			events = append(events, e)
			if record.Offset >= end-1 {
				return events, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("read %s/%d up to %d: %w", name, partition, end, ctx.Err())
		}
	}
}

func readEvent(topic string, record *sarama.ConsumerMessage) (Event, error) {
	e := Event{Topic: topic}
	for _, h := range record.Headers {
		switch string(h.Key) {
		case "event-id":
			e.ID = string(h.Value)
		case "event-type":
			e.Type = string(h.Value)
		}
	}
	if err := json.Unmarshal(record.Value, &e); err != nil && !strings.HasPrefix(e.Type, "record.") {
		return e, fmt.Errorf("record %d of %s/%d is not JSON: %w", record.Offset, topic, record.Partition, err)
	}
	return e, nil
}
