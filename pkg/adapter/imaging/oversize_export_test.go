package imaging

import (
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Sibling is an output of a rendition as the rules see it.
type Sibling struct {
	Format         pipeline.Format
	Quality, Bytes int
	Score          float64
	Flattened      bool
	Default        bool
	Oversize       bool
}

// DropReasons is worth, of files with so many bytes.
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

// TypicalScore is looks.
var TypicalScore = typicalScore

// HighestQualityWithin is lower with an encoder that is told by the size of its files alone.
func HighestQualityWithin(asked, floor, limit int, spared bool, size func(quality int) (int, error)) (quality, lowered int, err error) {
	try := func(quality int) (encoding, error) {
		n, err := size(quality)
		return encoding{body: make([]byte, n), quality: quality}, err
	}
	first, err := try(asked)
	if err != nil {
		return 0, 0, err
	}
	file, err := highestQualityWithin(first, floor, limit, spared, try)
	return file.quality, file.lowered, err
}
