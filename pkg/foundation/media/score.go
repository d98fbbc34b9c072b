package media

import "vitrine.io/pkg/foundation/pipeline"

// Comparison is an encoded file to be compared with the source that it was made from.
type Comparison struct {
	Rendition pipeline.Rendition `json:"rendition"` // by which the source was scaled and framed
	Format    pipeline.Format    `json:"format"`
	Body      []byte             `json:"-"` // not part of the description that is sent to a codec
}

// Score is the result of a comparison.
type Score struct {
	Value float64 `json:"value"` // SSIMULACRA2, up to 100
	OK    bool    `json:"ok"`    // false: the file is not comparable, because it is too small, damaged, or has another size
}
