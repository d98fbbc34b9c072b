package worker

import (
	"context"
	"io"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Source downloads images.
type Source interface {
	// Fetch downloads at most maxBytes bytes from url. The caller discards the body as soon as it is no longer used,
	// because other downloads wait for its memory. Errors are *media.Failure, or ctx's error.
	Fetch(ctx context.Context, url string, rules pipeline.Fetch, maxBytes int64) (Download, error)
}

// Samples are the samples of canaries, as a worker handles them. Every method is one transaction. They return
// fault.Unavailable if the database is down.
type Samples interface {
	// BeginSample starts an attempt at a sample, for a duration of budget, and schedules the deletion of its prefix after keep.
	// It returns catalog.ErrDone if the sample has an outcome or no longer exists, if its backfill is suspended or may have no
	// canary any more, or if the sample has failed now: its image is gone, or too many attempts have begun.
	BeginSample(ctx context.Context, id string, budget, keep time.Duration) (backfill.SampleAttempt, error)
	// EndSample writes the outcome. It returns catalog.ErrSuperseded, and writes nothing, if another attempt has begun or the
	// sample no longer exists.
	EndSample(ctx context.Context, a backfill.SampleAttempt, state backfill.SampleState, o backfill.SampleOutcome) error
	// PostponeSample makes the sample wait for delay. counts says that the attempt counts. An attempt without a prefix has not
	// begun. It does nothing if another attempt has begun or the sample has ended.
	PostponeSample(ctx context.Context, a backfill.SampleAttempt, delay time.Duration, counts bool) error
}

// Prober connects to the hosts of sources.
type Prober interface {
	// Reach returns nil if the host of url responds, within rules.ConnectTimeout and at most as long again. Errors are
	// *media.Failure, or ctx's error.
	Reach(ctx context.Context, url string, rules pipeline.Fetch) error
}

// RecentSources finds sources of which images were made lately.
type RecentSources interface {
	// RecentSources returns at most limit sources of images that became ready within the duration, of as many users as it
	// finds.
	RecentSources(ctx context.Context, within time.Duration, limit int) ([]catalog.RecentSource, error)
}

// Download is a source in memory.
type Download struct {
	Body   []byte
	SHA256 string // of Body, in hex

	Release func() // releases the memory of Body; may be called more than once; may be nil

	original bool // it is the kept original
}

// Discard releases the body. It may be called more than once.
func (d *Download) Discard() {
	d.Body = nil
	if d.Release != nil {
		d.Release()
	}
}

// Codec renders renditions, one image at a time in a process of its own.
type Codec interface {
	// Render waits for a free process, and then at most spec.Limits.Deadline for its result. Errors are *media.Failure, or
	// ctx's error.
	Render(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
	// RenderSafe is Render for poison content: in a new process that does not use SIMD instructions, which is slower.
	RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
	// Compare returns the score of each of the files, which were made from the source, in a process as for Render and with its
	// limits and errors.
	Compare(ctx context.Context, source []byte, spec pipeline.Spec, files []media.Comparison) ([]media.Score, error)
}

// Memory limits the memory of all sources together.
type Memory interface {
	// Reserve waits until so many bytes are free. release may be called more than once. The error is that of ctx.
	Reserve(ctx context.Context, bytes int64) (release func(), err error)
}

// Originals is the bucket of the originals.
type Originals interface {
	// Put stores an object of size bytes. It may be repeated with the same object.
	Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error
	// Read returns an object of at most limit bytes. It returns fault.NotFound if it is missing, and fault.Conflict if it is
	// larger, else fault.Unavailable or the error of ctx.
	Read(ctx context.Context, key string, limit int64) ([]byte, error)
}

// Objects is the object store.
type Objects interface {
	// Put stores an object of size bytes. It may be repeated with the same object.
	Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error
	// PutNoStore is Put for an object that no cache may keep.
	PutNoStore(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error
	// Read returns an object of at most limit bytes. It returns fault.NotFound if it is missing, and fault.Conflict if it is
	// larger.
	Read(ctx context.Context, key string, limit int64) ([]byte, error)
}
