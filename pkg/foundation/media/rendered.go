package media

import (
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

// Rendered is the result of the codec for one source.
type Rendered struct {
	Format      pipeline.Format // of the source
	Width       int             // of the source, upright, in pixels
	Height      int             // the same
	Animated    bool            // the source has several frames; the first was rendered
	Placeholder string          // ThumbHash in base64
	Files       []EncodedFile
	Dropped     []Dropped
	CPU         time.Duration `json:"-"` // of the codec process; 0 if it is not known
}

// EncodedFile is one encoded rendition, not yet stored.
type EncodedFile struct {
	Name    string
	Format  pipeline.Format
	Width   int     // in pixels
	Height  int     // in pixels
	Score   float64 // SSIMULACRA2, if the output has a target; 0: not measured
	Lowered int     // the quality, 1 to 100, if it was lowered because the file was larger than the source; 0: it was not
	Default bool
	Body    []byte `json:"-"` // not part of the description that a codec sends; see codecproto
}

// Dropped is an output that the specification requests and that was dropped because another one of its rendition is better.
type Dropped struct {
	Name   string
	Format pipeline.Format
	Reason Reason
}

// Reason is why an output was dropped. Reasons are public.
type Reason string

// The reasons.
const (
	// LargerThanSource: the output has as many pixels as the source and more bytes, and another output of its rendition has no
	// more bytes than it.
	LargerThanSource Reason = "larger_than_source"
	// LargerThanSibling: another output of its rendition looks at least as good, is supported at least as widely, and has no
	// more bytes.
	LargerThanSibling Reason = "larger_than_sibling"
)

// Reasons returns all reasons.
func Reasons() []Reason { return []Reason{LargerThanSource, LargerThanSibling} }

// Size returns the total number of bytes of all files.
func (r Rendered) Size() int {
	var n int
	for _, out := range r.Files {
		n += len(out.Body)
	}
	return n
}
