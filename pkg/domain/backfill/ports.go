package backfill

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// Backfills keep backfills. Every method is one transaction. They return fault.Unavailable if the database is down.
type Backfills interface {
	// ProposeBackfill adds b as a proposal and gives it its id, number and time. An earlier proposal of the pipeline is
	// superseded. Of backfills that have ended, it keeps the last keep. It returns fault.Conflict if a backfill of the
	// resource's generation exists.
	ProposeBackfill(ctx context.Context, b Backfill, keep int) (Backfill, error)
	// EditBackfill locks a backfill, calls fn, and writes what fn changed. now is the database's time. It ends the lease of a
	// walk, so that the walk saves nothing that it has read before. An error of fn undoes the change and is returned.
	// fault.NotFound if there is none with that name.
	EditBackfill(ctx context.Context, name string, fn func(b *Backfill, now time.Time) error) (Backfill, error)
	// ListBackfills returns all backfills, the newest first.
	ListBackfills(ctx context.Context) ([]Backfill, error)
}

// Walks give the backfills with work to one process at a time.
type Walks interface {
	// AcquireWalk returns a backfill that is approved, running, or has jobs, events or samples left, if its next step is due,
	// and makes it due after lease: no other call returns it before. It adds the events to the counts. acquired is false if
	// none is due.
	AcquireWalk(ctx context.Context, lease time.Duration) (w Walk, acquired bool, err error)
	// SaveWalk saves what a step has changed, and makes the next one due after wait. saved is false, and nothing is changed, if
	// the backfill was acquired or edited since, or if it would be a second running one.
	SaveWalk(ctx context.Context, w Walk, wait time.Duration) (saved bool, err error)
	// InForce returns the hashes of the pipelines that api processes have in force, without duplicates.
	InForce(ctx context.Context) ([]string, error)
}

// Walk is a backfill that a process has acquired.
type Walk struct {
	Backfill
	Lease        string    // names this acquisition
	Outstanding  int       // its jobs that have not ended
	Sampled      bool      // it has samples of a canary
	OtherRunning bool      // another backfill is running
	Now          time.Time // the database's time
}

// Images are the images that backfills are for.
type Images interface {
	// Candidates returns up to limit.Images images with ids above b.Cursor, in the order of ids, that may be requested: idle,
	// selected, and not tried by b. It looks at up to limit.Rows images.
	Candidates(ctx context.Context, b Backfill, outputs map[string]string, limit Limit) (Candidates, error)
	// LooseJobs returns up to limit jobs of the backfill that no attempt works on. If lost is above 0, only those for which
	// that has been so since, with a message that has left the outbox.
	LooseJobs(ctx context.Context, id int64, lost time.Duration, limit int) ([]ImageRef, error)
	// Outputs returns the output hash of each pipeline that was ever requested, by its hash.
	Outputs(ctx context.Context) (map[string]string, error)
}

// Limit bounds a search.
type Limit struct {
	Images int // to find
	Rows   int // to look at; each may have a product and a job to look at, too
}

// Candidates is the result of a search.
type Candidates struct {
	Images []ImageRef
	Busy   int             // images in work of others that may come out as this backfill selects them
	Next   catalog.ImageID // where the next search continues; 0 if no image is left
}

// ImageRef names an image and its product.
type ImageRef struct {
	ProductID catalog.ProductID
	ImageID   catalog.ImageID
}

// Sampler reads samples for plans.
type Sampler interface {
	// Extent returns the highest ids of products and images, or 0 if there are none.
	Extent(ctx context.Context) (products catalog.ProductID, images catalog.ImageID, err error)
	// Sample returns what the images with these ids have that b selects.
	Sample(ctx context.Context, b Backfill, outputs map[string]string, ids []int64) (Sample, error)
}

// Canaries keep the samples of canaries. Every method is one transaction. They return fault.Unavailable if the database is
// down.
type Canaries interface {
	// PickSamples returns up to limit of the images with these ids that b selects, at random.
	PickSamples(ctx context.Context, b Backfill, outputs map[string]string, ids []int64, limit int) ([]ImageRef, error)
	// StartCanary edits a backfill as EditBackfill does, and replaces its samples by the images.
	StartCanary(ctx context.Context, name string, images []ImageRef, fn func(b *Backfill, now time.Time) error,
	) (Backfill, error)
	// SendSamples sends samples to the workers until inFlight of them have no outcome, and makes those due again after lost.
	// sent is the number of messages.
	SendSamples(ctx context.Context, id int64, inFlight int, lost time.Duration) (sent int, err error)
	// Samples returns all samples of the backfill, in the order of the images.
	Samples(ctx context.Context, id int64) ([]CanarySample, error)
	// DropSamples removes all samples of the backfill, unless its canary is running. It is no error if it has none.
	DropSamples(ctx context.Context, id int64) error
}

// Catalog requests and drops the jobs of backfills. *catalog.Service implements and documents it.
type Catalog interface {
	RecordPipeline(ctx context.Context) (hash string, err error)
	RequestBackfill(ctx context.Context, product catalog.ProductID, image catalog.ImageID, r catalog.BackfillRequest) error
	DropBackfill(ctx context.Context, product catalog.ProductID, image catalog.ImageID, backfill int64) error
}
