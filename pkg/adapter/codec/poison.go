package codec

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

const (
	poisonTTL = 10 * time.Minute // an entry expires this long after the last codec was lost on it
	maxPoison = 256              // entries; the oldest one is evicted
)

// poisonCache records content on which a codec was lost recently, because many products may share an image. It may be
// used concurrently.
type poisonCache struct {
	now     func() time.Time
	mu      sync.Mutex
	entries map[poisonKey]time.Time // when a codec was last lost on it
}

// poisonKey is the hash of a source and a specification, because the same source may be harmless with another
// specification.
type poisonKey [sha256.Size]byte

func newPoisonKey(source []byte, spec pipeline.Spec) (k poisonKey) {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(spec) // neither write can fail
	_, _ = h.Write(source)
	h.Sum(k[:0])
	return k
}

// contains reports whether a codec was lost on the source within poisonTTL. While the cache is empty, nothing is hashed.
func (c *poisonCache) contains(source []byte, spec pipeline.Spec) bool {
	c.mu.Lock()
	empty := len(c.entries) == 0
	c.mu.Unlock()
	if empty {
		return false
	}
	key := newPoisonKey(source, spec)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	_, found := c.entries[key]
	return found
}

// add records that a codec was lost on the source now.
func (c *poisonCache) add(source []byte, spec pipeline.Spec) {
	key := newPoisonKey(source, spec)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	if _, found := c.entries[key]; !found && len(c.entries) >= maxPoison {
		var oldest poisonKey
		for other, last := range c.entries {
			if first, ok := c.entries[oldest]; !ok || last.Before(first) {
				oldest = other
			}
		}
		delete(c.entries, oldest)
	}
	c.entries[key] = c.now()
}

func (c *poisonCache) expire() {
	now := c.now()
	maps.DeleteFunc(c.entries, func(_ poisonKey, last time.Time) bool { return now.Sub(last) >= poisonTTL })
}
