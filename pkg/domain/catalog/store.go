package catalog

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// Store keeps users and products. Every method is one transaction: a change and its messages are committed together or not
// at all. All methods may be called concurrently. Besides the errors below they return fault.Unavailable if the database is
// down or too slow, and ErrOutcomeUnknown if the connection broke after COMMIT was sent.
//
// A store keeps the fields of an image's job apart from the image, so that Begin, Retry, Defer and Release write no image.
// An idle image that gets a live job, due at once, is released in the same transaction while few jobs are in flight:
// ReleasedAt is set, and [Image.JobMessage] is sent. All other jobs wait for the scheduler.
type Store interface {
	// InsertUser adds a user. It returns fault.Conflict with the code "email_taken" if a user has this e-mail address; the
	// comparison is that of EmailKey.
	InsertUser(ctx context.Context, u User) (User, error)

	// InsertUserOnce is InsertUser for a request that a client may repeat, as InsertOnce is Insert.
	InsertUserOnce(ctx context.Context, key IdempotencyKey, u User, respond func(User) (SavedResponse, error),
	) (saved SavedResponse, replayed bool, err error)

	// User returns a user, or fault.NotFound if there is none with this id.
	User(ctx context.Context, id UserID) (User, error)

	// Insert adds p, its images, and the messages that announce returns. announce is called once, inside the transaction,
	// with all ids and times set; it must be pure. It returns fault.Invalid with the path user_id if the user is unknown.
	Insert(ctx context.Context, p Product, announce func(Product) []Outgoing) (Product, error)

	// Product returns a product as one snapshot, from the primary. For a deleted product only Deleted, the id and the
	// version are set. It returns fault.NotFound if the id never existed.
	Product(ctx context.Context, id ProductID) (Product, error)

	// List returns one page of products that are not deleted, each as Product returns it, in a fixed number of queries.
	List(ctx context.Context, q Query) (Page, error)

	// InsertOnce is Insert for a request that a client may repeat. The first request with a principal and key adds p and
	// saves the response that respond makes of it, in one transaction. Later requests get the saved response, and
	// replayed is true. While another request with the key is in progress, it returns ErrInProgress without waiting. If
	// the earlier request had another fingerprint, it returns ErrKeyReused. respond is called once, inside the
	// transaction, and must be pure; its error rolls the transaction back and is returned unwrapped.
	InsertOnce(ctx context.Context, key IdempotencyKey, p Product, announce func(Product) []Outgoing,
		respond func(Product) (SavedResponse, error)) (inserted Product, saved SavedResponse, replayed bool, err error)

	// Edit locks the product, then reads its images, calls fn, and writes what fn changed together with the Change that
	// fn returned. fn must change only its argument, because it may be called several times. now is the database's time.
	// An error of fn rolls the transaction back and is returned unwrapped. Edit returns fault.NotFound if the id never
	// existed; a deleted product is passed to fn with Deleted set. It returns ErrDeletionStarted if a prefix in
	// CancelDeletions has no scheduled deletion, or one that has started.
	//
	// fn may add images (without an ID), remove images and reorder them; Position must be the index in Images. An image's
	// source never changes. The row of a removed image is deleted; fn has to schedule the deletion of its objects.
	Edit(ctx context.Context, id ProductID, fn func(p *Product, now time.Time) (Change, error)) (Product, error)

	// EditOnce is Edit for a request that a client may repeat, as InsertOnce is Insert. respond gets the product as Edit
	// returns it.
	EditOnce(ctx context.Context, key IdempotencyKey, id ProductID, fn func(p *Product, now time.Time) (Change, error),
		respond func(Product) (SavedResponse, error)) (edited Product, saved SavedResponse, replayed bool, err error)
}

// Outgoing is a message to be published after the transaction is committed and Delay has passed.
type Outgoing struct {
	Message event.Message
	Delay   time.Duration
}

// Change is what an edit writes beside the changed rows.
type Change struct {
	Outbox          []Outgoing
	Deletions       []ScheduledDeletion // of objects that an attempt may store, and of objects that are no longer visible
	CancelDeletions []string            // prefixes whose objects become visible; their deletions must not have started
	Backfill        []BackfillEvent
}

// IdempotencyKey identifies a request that a client may repeat and that must take effect only once.
type IdempotencyKey struct {
	Principal   string // the owner of the key
	Key         string // chosen by the client
	Fingerprint string // digest of the request's content; a request with the same key and another fingerprint is rejected
}

// SavedResponse is the response to the first request with a key, kept for its repetitions. Only the caller of InsertOnce and
// its like knows its format.
type SavedResponse []byte

// ErrInProgress says that another request with the same key is in progress.
var ErrInProgress = fault.New(fault.Conflict, "idempotency_in_progress",
	"a request with this key is in progress; repeat this one to get its response")

// ErrKeyReused says that the key belongs to a request with another fingerprint.
var ErrKeyReused = fault.New(fault.Invalid, "idempotency_key_reused",
	"the key was used for another request; use a new one")

// ScheduledDeletion says that objects below Prefix may exist and are deleted after Due, unless the deletion is cancelled.
type ScheduledDeletion struct {
	Prefix  string // ends in a slash
	ImageID ImageID
	Delay   time.Duration // from the database's now
}

// ErrOutcomeUnknown says that a transaction may or may not have been committed.
var ErrOutcomeUnknown = fault.New(fault.Unavailable, "outcome_unknown",
	"the connection to the database broke while the change was being committed: it may or may not have happened")

// ErrDeletionStarted says that an attempt's objects are being deleted, so that the job needs a new attempt.
var ErrDeletionStarted = fault.New(fault.Conflict, "deletion_started", "the attempt's objects are being deleted")

// Pipelines keeps every pipeline that was ever requested, by its hash.
type Pipelines interface {
	// SavePipeline saves a pipeline's document (JSON). A hash that is saved already keeps its document.
	SavePipeline(ctx context.Context, hash string, document []byte) error
	// Pipeline returns the document, or fault.NotFound if the hash was never saved.
	Pipeline(ctx context.Context, hash string) ([]byte, error)
}

// Document is a product as the API sends it.
type Document struct {
	Version int64
	Missing bool   // the product does not exist (at that version); no ETag, no Body
	ETag    string // with its quotes
	Body    []byte // JSON; shared, must not be changed
}

// FillResult is the result of a Fill.
type FillResult int

// The values of FillResult.
const (
	Filled  FillResult = iota + 1 // stored, or the same version was stored before
	Stale                         // not stored: the cache knows a newer version, so that the caller has to read again
	TooSlow                       // not stored: a tombstone that would reject it may have expired since the read started
)

// Cache keeps documents by product id and version. It may lose entries at any time, and never returns a version that
// Invalidate has made unreadable. All methods may be called concurrently. Callers treat an error as a miss.
type Cache interface {
	// Get returns the document, or false for a miss.
	Get(ctx context.Context, id ProductID) (Document, bool, error)

	// Fill stores doc unless the cache has a newer version or tombstone. readStart is a time before doc was read from the
	// store.
	Fill(ctx context.Context, id ProductID, doc Document, readStart time.Time) (FillResult, error)

	// Invalidate makes versions below version unreadable, and rejects later Fills with such a version.
	Invalidate(ctx context.Context, id ProductID, version int64) error
}
