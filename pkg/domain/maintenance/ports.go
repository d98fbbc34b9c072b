package maintenance

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// Objects is the object store as the garbage collector uses it.
type Objects interface {
	// DeletePrefixes deletes every object below each of the prefixes, which end in slashes. It returns one error for each
	// prefix, in their order. The error of one does not affect the others. It is no error if there is no object.
	DeletePrefixes(ctx context.Context, prefixes []string) []error
}

// Deletions are the scheduled deletions of objects.
type Deletions interface {
	// StartDue marks up to limit due deletions as started, makes each due again after secondPass, and returns their prefixes.
	// An attempt can no longer cancel a started deletion. No other call returns the same deletion.
	StartDue(ctx context.Context, limit int, secondPass time.Duration) ([]string, error)
	// ClaimSecondPass returns the prefixes of up to limit started deletions that are due again. It makes each due after
	// lease: no other call returns it before, and one does afterwards unless the deletion was removed.
	ClaimSecondPass(ctx context.Context, limit int, lease time.Duration) ([]string, error)
	// Remove removes started deletions. It may leave some that another transaction has locked.
	Remove(ctx context.Context, prefixes []string) error
}

// OverdueJobs finds released jobs that have not ended in time.
type OverdueJobs interface {
	// OverdueJobs returns up to limit jobs that were released and due more than overdue ago and whose messages are not in the
	// outbox, behind after in the order of release. now is the database's time, read before the jobs.
	OverdueJobs(ctx context.Context, after ReleasedJob, limit int, overdue time.Duration,
	) (jobs []ReleasedJob, now time.Time, err error)
}

// ReleasedJob is a job that was given to the workers.
type ReleasedJob struct {
	ImageRef
	ReleasedAt time.Time
}

// Progress tells how far the workers have come with the jobs in Kafka.
type Progress interface {
	// Passed returns a function that gives, for a product, a time of which this holds: the workers have passed over the
	// record of each of the product's jobs that was published before it. It is now for a product whose partition has no
	// record left, also after the partition's records or the workers' offsets were lost. now is a time before the call.
	Passed(ctx context.Context, now time.Time) (func(catalog.ProductID) time.Time, error)
}

// Republisher publishes the job of an image again. *catalog.Service implements and documents it.
type Republisher interface {
	Republish(ctx context.Context, product catalog.ProductID, image catalog.ImageID, releasedBefore time.Time,
		overdue time.Duration) error
}

// Purger removes rows that are no longer needed.
type Purger interface {
	// PurgeDeleted removes up to limit products that were deleted more than after ago, with the rows of their images. It
	// returns the number of products.
	PurgeDeleted(ctx context.Context, limit int, after time.Duration) (int, error)
}

// KeyPartitions are the partitions of the idempotency keys, one for each day.
type KeyPartitions interface {
	// RotateKeys creates the partitions of the next days, and drops those whose keys are all older than 24 hours. It does
	// nothing while another process does it.
	RotateKeys(ctx context.Context) (KeyRotation, error)
}

// KeyRotation is the result of a rotation. It is set as far as possible if the rotation fails.
type KeyRotation struct {
	DaysAhead int // days after today that have a partition, without a gap; -1: today has none, so keys cannot be stored
	Dropped   int // partitions
}

// ImageFinder finds images by their state.
type ImageFinder interface {
	// SelectImages returns up to limit idle images that match the filter, of products that are not deleted, with ids above
	// after, in the order of their ids. It scans a bounded number of rows, so it may return fewer: only a next of 0 means
	// that no image with an id above next matches.
	SelectImages(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
	) (found []ImageRef, next catalog.ImageID, err error)
}

// ImageReprocessor requests an image again if it matches the filter. *catalog.Service implements and documents it.
type ImageReprocessor interface {
	ReprocessIf(ctx context.Context, product catalog.ProductID, image catalog.ImageID, filter catalog.Filter,
		delay time.Duration) error
}

// AuditedCatalog is what the auditor changes. *catalog.Service implements and documents it.
type AuditedCatalog interface {
	ImageReprocessor
	ForgetOriginal(ctx context.Context, product catalog.ProductID, image catalog.ImageID, key string) error
}

// SavedResponses keep the responses to bulk requests with an idempotency key.
type SavedResponses interface {
	// SavedResponse returns the response to an earlier request with the key. found is false if there was none;
	// catalog.ErrKeyReused if the earlier request had another fingerprint.
	SavedResponse(ctx context.Context, key catalog.IdempotencyKey) (saved catalog.SavedResponse, found bool, err error)
	// SaveResponse saves the response, unless one is saved under the key, and returns the one that is saved.
	// catalog.ErrKeyReused as for SavedResponse; catalog.ErrInProgress while another process saves one.
	SaveResponse(ctx context.Context, key catalog.IdempotencyKey, response catalog.SavedResponse) (catalog.SavedResponse, error)
}

// BucketReader is the object store as the auditor uses it.
type BucketReader interface {
	// Page returns up to limit objects below prefix whose keys are greater than after, in the byte order of keys. more
	// reports whether there are others.
	Page(ctx context.Context, prefix, after string, limit int) (found []Object, more bool, err error)
	// Owner returns the installation id in the owner mark of the bucket, or "" if it has no mark.
	Owner(ctx context.Context) (string, error)
}

// ProbeKey is the key of an object in the bucket of the originals by which setup finds out whether everyone can read them.
// No image has it.
const ProbeKey = "originals/.vitrine"

// Object is an object in a listing.
type Object struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock; zero if not requested
}

// References are the rows that refer to objects.
type References interface {
	// Unreferenced returns those of the prefixes that no row refers to. An image refers to the prefix of its published
	// objects, to that of its original, and to that of its running attempt, unless its product is deleted; a scheduled
	// deletion refers to its prefix. It reads one snapshot.
	Unreferenced(ctx context.Context, prefixes []catalog.ScheduledDeletion) ([]catalog.ScheduledDeletion, error)
	// ScheduleOrphans schedules the deletion of those of the prefixes that are still unreferenced. It returns their
	// number.
	ScheduleOrphans(ctx context.Context, prefixes []catalog.ScheduledDeletion) (int, error)
	// Published reads up to limit images with ids above after, up to until, in the order of their ids, and returns the ready
	// and idle ones of products that are not deleted. It may return none although others follow: only a next of 0 means that
	// no image is left.
	Published(ctx context.Context, after, until catalog.ImageID, limit int,
	) (found []Published, next catalog.ImageID, err error)
	// Extent returns the highest ids of products and images, or 0 if there are none.
	Extent(ctx context.Context) (products catalog.ProductID, images catalog.ImageID, err error)
}

// Published is an image with the objects that the API shows.
type Published struct {
	ImageRef
	FencingToken   int64
	ReprocessError media.Code // why the last request failed; "" if it succeeded
	Objects        []Object   // without duplicates
	Original       Object     // in the bucket of the originals; its key is "" if the image has none
}

// ImageRef names an image and its product.
type ImageRef struct {
	ProductID catalog.ProductID
	ImageID   catalog.ImageID
}
