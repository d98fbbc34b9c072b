package maintenance

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

const (
	maxShards = 16     // of a pass: the number of processes that can share it
	shardSize = 10_000 // minimum ids of a shard, so that a small installation has few
)

// shardCount returns how many shards a pass over that many ids has.
func shardCount(ids int64) int64 { return min(maxShards, 1+ids/shardSize) }

// rowRanges divides the ids from 1 to last into ranges of equal size. Images that are added later belong to the next pass.
func rowRanges(last catalog.ImageID) []Range {
	n := shardCount(int64(last))
	ranges := make([]Range, n)
	for i := range n {
		ranges[i] = Range{formatID(int64(last) / n * i), formatID(int64(last) / n * (i + 1))}
	}
	ranges[n-1].Until = formatID(int64(last))
	return ranges
}

// objectRanges divides the keys of all objects below a prefix into ranges that have equally many products, if the highest
// product id is last. The order of keys is that of the ids as text: 1, 10, 100, 11, 2.
func objectRanges(prefix string, last catalog.ProductID) []Range {
	n := shardCount(int64(last))
	ranges := make([]Range, n)
	first := int64(1) // the lowest number that has as many digits as last
	for first <= int64(last)/10 {
		first *= 10
	}
	for i := int64(1); i < n; i++ {
		share := int64(last) / n * i
		at := first + int64(sort.Search(int(9*first), func(k int) bool {
			return productsBefore(formatID(first+int64(k)), int64(last)) >= share
		}))
		bound := prefix + formatID(at)
		ranges[i-1].Until, ranges[i].After = bound, bound
	}
	return ranges
}

// productsBefore returns how many of the ids from 1 to last come before a number in the order of text.
func productsBefore(number string, last int64) int64 {
	var before int64
	for low, digits := int64(1), 1; low <= last && low > 0; low, digits = low*10, digits+1 {
		high := min(low*10-1, last) // the ids with that many digits are those from low to high
		bound, _ := strconv.ParseInt((number + strings.Repeat("0", digits))[:digits], 10, 64)
		if digits < len(number) {
			bound++ // the beginning of a number comes before the number
		}
		before += min(max(bound-low, 0), high-low+1)
	}
	return before
}

// keyPosition returns the place of a key between the first and the last key below a prefix, as a number from 0 to 1.
func keyPosition(prefix, key string) float64 {
	digits, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	fraction, err := strconv.ParseFloat("0."+digits, 64)
	if err != nil {
		return 0
	}
	return (fraction - 0.1) / 0.9 // the first digit is not 0
}

// objectProgress returns which share of a range of keys is done, if the objects up to cursor are.
func objectProgress(prefix string, r Range, cursor string) float64 {
	from, to := keyPosition(prefix, r.After), 1.0
	if r.Until != "" {
		to = keyPosition(prefix, r.Until)
	}
	return share(keyPosition(prefix, cursor)-max(from, 0), to-max(from, 0))
}

func share(done, all float64) float64 {
	if all <= 0 {
		return 1
	}
	return min(max(done/all, 0), 1)
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }

// parseIDs returns the ids that a shard of the rows has as its cursor and as its end.
func parseIDs(shard Shard) (cursor, until int64, err error) {
	if cursor, err = strconv.ParseInt(shard.Cursor, 10, 64); err == nil {
		until, err = strconv.ParseInt(shard.Until, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read cursor: %w", err)
	}
	return cursor, until, nil
}

// pause returns the time until a shard's next step. The pass is on schedule if the share of it that is done is that of the
// target duration that has passed: a shard that is ahead waits for the schedule. A shard that is late continues at once, but
// all shards together do not exceed rate, in items a second.
func pause(shard Shard, at Position, items int, rate float64, target, elapsed time.Duration) time.Duration {
	minimum := time.Duration(float64(items*shard.Shards)/rate*float64(time.Second)) - elapsed
	scheduled := time.Duration(at.Progress*float64(target)) - shard.PassAge - elapsed
	return max(minimum, scheduled, 0)
}
