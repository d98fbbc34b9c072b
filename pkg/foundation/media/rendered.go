package media

import "vitrine.io/pkg/foundation/pipeline"

// Rendered is what the codec makes of one source.
type Rendered struct {
	Format      pipeline.Format // of the source
	Width       int             // of the source, upright
	Height      int
	Animated    bool   // the source has several frames; the first was taken
	Placeholder string // ThumbHash in base64
	Files       []EncodedFile
	Dropped     []Dropped
}

// EncodedFile is one encoded rendition, not yet stored.
type EncodedFile struct {
	Name    string
	Format  pipeline.Format
	Width   int
	Height  int
	Score   float64 // SSIMULACRA2, where a target asked for it; 0: not measured
	Lowered int     // the quality that it was lowered to, since it was larger than the source; 0: it was not
	Default bool
	Body    []byte
}

// Dropped is an output that the specification asks for and nobody needs: those of its rendition that stay are better.
type Dropped struct {
	Name   string
	Format pipeline.Format
	Reason Reason
}

// Reason is why an output was dropped. Reasons are public.
type Reason string

// The reasons.
const (
	// LargerThanSource: it has as many pixels as the source and more bytes, and what stays of its rendition has no more.
	LargerThanSource Reason = "larger_than_source"
	// LargerThanSibling: an output of its rendition that is at least as good, and read at least as widely, has no more bytes.
	LargerThanSibling Reason = "larger_than_sibling"
)

// Reasons returns all of them.
func Reasons() []Reason { return []Reason{LargerThanSource, LargerThanSibling} }

// Size returns the bytes of all outputs together.
func (r Rendered) Size() int {
	var n int
	for _, out := range r.Files {
		n += len(out.Body)
	}
	return n
}
