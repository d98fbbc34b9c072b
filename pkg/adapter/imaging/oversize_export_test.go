package imaging

import (
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Sibling holds the properties of an output that dropReasons compares.
type Sibling struct {
	Format         pipeline.Format
	Quality, Bytes int
	Score          float64
	Flattened      bool
	Default        bool
	Oversize       bool
}

// DropReasons is dropReasons with files of s.Bytes zero bytes.
func DropReasons(all ...Sibling) []media.Reason {
	siblings := make([]sibling, len(all))
	for i, s := range all {
		siblings[i] = sibling{
			encoding: encoding{body: make([]byte, s.Bytes), quality: s.Quality, score: s.Score},
			format:   s.Format, flattened: s.Flattened, isDefault: s.Default, oversize: s.Oversize,
		}
	}
	return dropReasons(siblings)
}

// TypicalScore is typicalScore.
var TypicalScore = typicalScore

// HighestQualityWithin is highestQualityWithin with an encoder that is a function from a quality to the size of the file.
func HighestQualityWithin(
	requested, floor, limit int, keep bool, size func(quality int) (int, error),
) (quality, lowered int, err error) {
	try := func(quality int) (encoding, error) {
		n, err := size(quality)
		return encoding{body: make([]byte, n), quality: quality}, err
	}
	first, err := try(requested)
	if err != nil {
		return 0, 0, err
	}
	file, err := highestQualityWithin(first, floor, limit, keep, try)
	return file.quality, file.lowered, err
}
