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
	Flat           bool
	Default        bool
	Exceeds        bool
}

// Worth is worth, of files with so many bytes.
func Worth(all ...Sibling) []media.Reason {
	siblings := make([]sibling, len(all))
	for i, s := range all {
		siblings[i] = sibling{
			encoding: encoding{body: make([]byte, s.Bytes), quality: s.Quality, score: s.Score},
			format:   s.Format, flat: s.Flat, marked: s.Default, exceeds: s.Exceeds,
		}
	}
	return worth(siblings)
}

// Looks is looks.
var Looks = looks

// Lower is lower with an encoder that is told by the size of its files alone.
func Lower(asked, floor, limit int, spared bool, size func(quality int) (int, error)) (quality, lowered int, err error) {
	try := func(quality int) (encoding, error) {
		n, err := size(quality)
		return encoding{body: make([]byte, n), quality: quality}, err
	}
	first, err := try(asked)
	if err != nil {
		return 0, 0, err
	}
	file, err := lower(first, floor, limit, spared, try)
	return file.quality, file.lowered, err
}
