package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/event"
)

// GroupWorkers is the consumer group of the workers, without the prefix.
const GroupWorkers = "vitrine.workers"

// GroupBackfill is the group in which the workers consume the jobs of backfills, without the prefix.
const GroupBackfill = "vitrine.workers.backfill"

// clockSkew is how far the clock of the database may be ahead of the clock that dates records.
const clockSkew = time.Minute

// Progress reads how far a group has come in a topic. It joins no group and commits nothing.
type Progress struct {
	reader       *Reader
	group, topic string
}

var _ maintenance.Progress = (*Progress)(nil)

// NewProgress returns the progress of the workers. It reads the TLS files and does not connect. Its error is an invalid
// setting.
func NewProgress(config Config) (*Progress, error) {
	reader, err := NewReader(config)
	if err != nil {
		return nil, err
	}
	reader.timeout = recordTimeout
	return &Progress{reader: reader, group: config.Name(GroupWorkers), topic: config.Name(event.TopicRequested)}, nil
}

// recordTimeout is how long Passed waits for an existing record.
const recordTimeout = 5 * time.Second

// Passed implements maintenance.Progress. The time for a partition is the time of the record at its committed offset, less
// a minute for the difference of clocks. Its error is fault.Unavailable.
func (p *Progress) Passed(ctx context.Context, now time.Time) (func(catalog.ProductID) time.Time, error) {
	times := map[int32]time.Time{}
	partitions := int32(0)
	err := p.reader.connected(ctx, func(client sarama.Client, consumer sarama.Consumer) error {
		spans, all, err := p.remaining(client)
		if err != nil {
			return unavailable(withCause(ctx, err))
		}
		partitions = all
		for _, s := range spans {
			err := p.reader.readSpan(ctx, consumer, s, func(r Record) error {
				times[s.partition] = r.Time.Add(-clockSkew)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	partitioner := sarama.NewMurmur2Partitioner(p.topic)
	return func(id catalog.ProductID) time.Time {
		n, err := partitioner.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(event.Key(int64(id)))}, partitions)
		if err != nil {
			return time.Time{} // passes over nothing
		}
		if at, waiting := times[n]; waiting {
			return at
		}
		return now
	}, nil
}

// remaining returns the first record behind the committed offset of each partition that has one, and the number of
// partitions. Without a committed offset, and behind one that no longer exists, the group starts at the oldest record.
func (p *Progress) remaining(client sarama.Client) (first []span, partitions int32, err error) {
	all, err := findSpans(client, p.topic)
	if err != nil {
		return nil, 0, err
	}
	ids, err := client.Partitions(p.topic)
	if err != nil {
		return nil, 0, fmt.Errorf("find partitions of %s: %w", p.topic, err)
	}
	committed, err := p.committed(client, ids)
	if err != nil {
		return nil, 0, fmt.Errorf("find the offsets of %s: %w", p.group, err)
	}
	for _, s := range all {
		if next := max(s.first, committed[s.partition]); next < s.end {
			first = append(first, span{topic: s.topic, partition: s.partition, first: next, end: next + 1})
		}
	}
	return first, int32(len(ids)), nil
}

// committed returns the offset that the group has committed in each partition; -1 or nothing if there is none.
func (p *Progress) committed(client sarama.Client, partitions []int32) (map[int32]int64, error) {
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("make admin: %w", err)
	}
	answer, err := admin.ListConsumerGroupOffsets(p.group, map[string][]int32{p.topic: partitions})
	if errors.Is(err, sarama.ErrGroupIDNotFound) || err == nil && answer.Err == sarama.ErrGroupIDNotFound {
		return map[int32]int64{}, nil
	}
	if err == nil && answer.Err != sarama.ErrNoError {
		err = answer.Err
	}
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for _, partition := range partitions {
		block := answer.GetBlock(p.topic, partition)
		switch {
		case block == nil:
			return nil, fmt.Errorf("partition %d: no answer", partition)
		case block.Err != sarama.ErrNoError:
			return nil, fmt.Errorf("partition %d: %w", partition, block.Err)
		}
		offsets[partition] = block.Offset
	}
	return offsets, nil
}
