package worker

import (
	"context"
	"io"

	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// Source downloads pictures.
type Source interface {
	// Fetch returns the body of url, which has to be dropped when it is no longer used: as long as it is not, others may have
	// to wait for its memory. Its errors are *media.Failure, or ctx's error.
	Fetch(ctx context.Context, url string, rules pipeline.Fetch, maxBytes int64) (Download, error)
}

// Download is a source in memory.
type Download struct {
	Body   []byte
	SHA256 string // hex, of Body

	Release func() // is told, more than once maybe, that Body is no longer used; may be nil
}

// Drop forgets the body. Dropping it again changes nothing.
func (d *Download) Drop() {
	d.Body = nil
	if d.Release != nil {
		d.Release()
	}
}

// Codec makes renditions, one image at a time in a process of its own.
type Codec interface {
	// Render waits for a free child, then for its answer, at most spec.Limits.Deadline. Its errors are *media.Failure, or
	// ctx's error.
	Render(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
	// RenderSafe is Render for a source that has cost a codec: in a new process without the vector unit, which is slower.
	RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
}

// Objects is the object store.
type Objects interface {
	// Put stores an object. Storing the same again changes nothing.
	Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error
}
