package worker

import (
	"context"
	"io"
	"time"

	"vitrine.io/pkg/catalog"
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
	// DeletePrefix deletes every object below prefix, which ends in a slash. None there is no error.
	DeletePrefix(ctx context.Context, prefix string) error
}

// Intents is what the compensator works through.
type Intents interface {
	// DoomDue marks up to limit intents whose time has come, sets their next time to now + again, and returns their prefixes.
	// From then on no attempt can adopt them.
	DoomDue(ctx context.Context, limit int, again time.Duration) ([]string, error)
	// DoomedDue returns up to limit doomed intents whose second time has come.
	DoomedDue(ctx context.Context, limit int) ([]string, error)
	// RemoveIntent removes a doomed intent for good.
	RemoveIntent(ctx context.Context, prefix string) error
}

// Overdue finds pictures whose work should long be done.
type Overdue interface {
	// OverdueImages returns up to limit pictures in work whose DueAt is more than patience ago, longest first.
	OverdueImages(ctx context.Context, limit int, patience time.Duration) ([]Picture, error)
	// PurgeDeleted removes up to limit products that were deleted more than after ago, with their pictures' rows.
	PurgeDeleted(ctx context.Context, limit int, after time.Duration) (int, error)
	// PurgeKeys removes up to limit idempotency keys that were used more than after ago.
	PurgeKeys(ctx context.Context, limit int, after time.Duration) (int, error)
}

// Selected finds pictures by what they are.
type Selected interface {
	// SelectImages returns up to limit pictures that are idle and match, of products that are not deleted, with ids above
	// after, in the order of their ids. It looks at a bounded number of pictures: where next is not 0 there may be others
	// after it, however few were found.
	SelectImages(ctx context.Context, which catalog.Selection, after catalog.ImageID, limit int,
	) (found []Picture, next catalog.ImageID, err error)
}

// Listing is the object store as the auditor reads it.
type Listing interface {
	// Page returns up to limit objects below prefix whose keys come after that one, in the order of their keys' bytes. more
	// says that there are others.
	Page(ctx context.Context, prefix, after string, limit int) (found []Object, more bool, err error)
	// Owner returns the id of the installation that the bucket is marked with, or "" if it has no mark.
	Owner(ctx context.Context) (string, error)
}

// Object is an object as a listing tells it.
type Object struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock; zero if nobody has asked
}

// Turns lets one process at a time audit, and remembers how far it has come.
type Turns interface {
	// TakeTurn takes the next turn if it is due, and then the one after it is not due before interval has passed. A turn that
	// was never taken is due. mine is false if it is not due, or somebody else was quicker; else cursor is what was saved last.
	TakeTurn(ctx context.Context, name string, interval time.Duration) (cursor string, mine bool, err error)
	// SaveCursor remembers how far the turns have come. The next one is due after wait.
	SaveCursor(ctx context.Context, name, cursor string, wait time.Duration) error
	// Installation returns the id of this database, and how often it was restored.
	Installation(ctx context.Context) (id string, epoch int64, err error)
}

// Books is what the rows say about objects.
type Books interface {
	// Unreferenced returns those of the prefixes, an attempt's each, that nothing speaks for: no picture of a product that is
	// not deleted publishes them or is in work with them, and no intent names them. All is seen at one moment.
	Unreferenced(ctx context.Context, prefixes []catalog.Intent) ([]catalog.Intent, error)
	// Condemn writes those intents of which that is still true, and returns how many.
	Condemn(ctx context.Context, prefixes []catalog.Intent) (int, error)
	// Published returns up to limit pictures that are ready and idle, of products that are not deleted, with ids above after,
	// in the order of their ids.
	Published(ctx context.Context, after catalog.ImageID, limit int) ([]Published, error)
}

// Published is a picture with the objects that clients are told of.
type Published struct {
	Picture
	Fence       int64
	RemakeError media.Code // why it could not be remade when it was last asked for; "" if it was
	Objects     []Object   // each once
}

// Picture names a picture and its product.
type Picture struct {
	ProductID catalog.ProductID
	ImageID   catalog.ImageID
}
