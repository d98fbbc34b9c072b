package worker

import (
	"context"
	"io"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Source downloads images.
type Source interface {
	// Fetch returns the body of url. The caller drops it as soon as it is no longer used: its memory counts against a budget
	// that other downloads wait for. The errors are *media.Failure, or ctx's error.
	Fetch(ctx context.Context, url string, rules pipeline.Fetch, maxBytes int64) (Download, error)
}

// Download is a source in memory.
type Download struct {
	Body   []byte
	SHA256 string // hex, of Body

	Release func() // called, maybe more than once, when Body is no longer used; may be nil
}

// Drop releases the body. Dropping it again changes nothing.
func (d *Download) Drop() {
	d.Body = nil
	if d.Release != nil {
		d.Release()
	}
}

// Codec renders renditions, one image at a time in a process of its own.
type Codec interface {
	// Render waits for a free process, then for its result, at most spec.Limits.Deadline. The errors are *media.Failure, or
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
