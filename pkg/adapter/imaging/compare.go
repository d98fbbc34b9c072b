package imaging

import (
	"fmt"
	"runtime"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/ssimulacra2"
)

// Compare returns the SSIMULACRA2 score of each file against the source, scaled and framed as the file was. The accepted
// formats and the limits are those of spec. A file that is damaged, has another size than its rendition has of this source,
// or is too small for the metric, is not comparable. Errors are *media.Failure. It must not run concurrently, as Render.
func Compare(source []byte, spec pipeline.Spec, files []media.Comparison) ([]media.Score, error) {
	defer runtime.KeepAlive(source) // libvips reads it until the last image is closed
	format, err := detectFormat(source, spec.Accept)
	if err != nil {
		return nil, err
	}
	head, err := readHeader(source, format, spec.Limits.MaxPixels)
	if err != nil {
		return nil, err
	}
	c := comparer{source: source, head: head}
	scores := make([]media.Score, len(files))
	for i, file := range files {
		if scores[i], err = c.score(file); err != nil {
			return nil, err
		}
	}
	return scores, nil
}

// comparer compares files with one source. It keeps the last reference, since files of one size follow each other.
type comparer struct {
	source    []byte
	head      header
	key       referenceKey
	reference *ssimulacra2.Reference // nil: the image is too small for the metric
}

// referenceKey contains what a reference depends on, besides the source.
type referenceKey struct {
	scaled, frame size
	background    string
	flattened     bool // on the background, as for JPEG
}

func (c *comparer) score(file media.Comparison) (media.Score, error) {
	scaled, frame := fit(file.Rendition, c.head.upright)
	if sound := verify(file.Body, file.Format, frame) == nil; !sound {
		return media.Score{}, nil
	}
	key := referenceKey{scaled, frame, file.Rendition.Background, file.Format == pipeline.JPEG}
	if key != c.key {
		c.key, c.reference = referenceKey{}, nil // frees the memory of the last one
		var err error
		if c.reference, err = c.newReference(file.Rendition, key); err != nil {
			return media.Score{}, err
		}
		c.key = key
	}
	if c.reference == nil {
		return media.Score{}, nil
	}
	value, err := score(c.reference, file.Body)
	return media.Score{Value: value, OK: err == nil}, nil // an error means that the file is damaged
}

// newReference returns the reference for files that were made from the source by a rendition.
func (c *comparer) newReference(r pipeline.Rendition, key referenceKey) (*ssimulacra2.Reference, error) {
	background, err := colour(r.Background)
	if err != nil {
		return nil, media.Fail(media.PipelineImpossible, fmt.Sprintf("rendition %s: %v", r.Name, err), nil)
	}
	base, err := decode(c.source, c.head, key.scaled)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	framed, err := applyFrame(base, key.scaled, framing{frame: key.frame, rendition: r})
	if err != nil {
		return nil, encodeFailure(err)
	}
	defer framed.Close()
	if key.flattened && framed.HasAlpha() {
		if err := framed.Flatten(background); err != nil {
			return nil, encodeFailure(err)
		}
	}
	reference, err := newReference(framed)
	if err != nil {
		return nil, encodeFailure(err)
	}
	return reference, nil
}
