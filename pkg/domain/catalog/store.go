package catalog

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// Store keeps users and products. Every method is one transaction: a write and its events commit together or not at all.
// All methods may be called concurrently. Errors: fault.Unavailable when the database is down or too slow, and
// ErrOutcomeUnknown when the connection broke after COMMIT was sent, so that it may or may not have happened.
type Store interface {
	// InsertUser adds a user. fault.Conflict with code "email_taken" if the e-mail address is known, whatever its case.
	InsertUser(ctx context.Context, u User) (User, error)

	// User returns a user. fault.NotFound if there is none.
	User(ctx context.Context, id UserID) (User, error)

	// Insert adds p with its pictures and what announce makes of it. announce is called once, inside the transaction, when
	// all ids and times are known; it must be pure. fault.Invalid with the path user_id if the user is unknown.
	Insert(ctx context.Context, p Product, announce func(Product) []Outgoing) (Product, error)

	// Product returns a product as one snapshot, from the primary. One that was deleted comes with Deleted set, its id and
	// its version; fault.NotFound is for an id that never was.
	Product(ctx context.Context, id ProductID) (Product, error)

	// List returns one page of products that are not deleted, each as Product would return it, in a fixed number of
	// queries.
	List(ctx context.Context, q Query) (Page, error)

	// InsertOnce is Insert for a request that a client may repeat: it adds p and the response that respond makes of it, in
	// one transaction, or returns the response of an earlier request with the same principal and key, and replayed.
	// ErrInProgress, without waiting, while another request with that key is in progress; ErrKeyReused if the earlier one
	// had another fingerprint. respond is called as announce is; its error undoes everything and is returned as it is.
	InsertOnce(ctx context.Context, key IdempotencyKey, p Product, announce func(Product) []Outgoing,
		respond func(Product) (SavedResponse, error)) (inserted Product, saved SavedResponse, replayed bool, err error)

	// Edit locks the product, reads its pictures after that, applies fn, and writes what fn changed together with the Change it
	// returned. fn must touch nothing but its argument: it may be called again. now is the database's time. An error of fn
	// undoes everything and is returned as it is. fault.NotFound for an id that never was; a deleted product is given to fn
	// with Deleted set. ErrDoomed if a prefix of Adopt has no intent, or a doomed one.
	//
	// fn may add pictures (without an ID), drop them and give them other places: Position has to be the index in Images. A
	// picture's source never changes. A dropped picture's row goes; what becomes of its objects is fn's to say.
	Edit(ctx context.Context, id ProductID, fn func(p *Product, now time.Time) (Change, error)) (Product, error)
}

// Outgoing is a message to be published after the transaction, not before Delay has passed.
type Outgoing struct {
	Message event.Message
	Delay   time.Duration
}

// Change is what an edit adds beside the changed rows.
type Change struct {
	Outbox          []Outgoing
	Deletions       []ScheduledDeletion // written: objects that may come to exist, or that have to go
	CancelDeletions []string            // prefixes whose objects now belong to the row: each one's intent must be there, undoomed, and is removed

	// Announce, if any, is called once new pictures have their ids, and returns more for the outbox. It must be pure.
	Announce func(Product) []Outgoing
}

// IdempotencyKey identifies a request that a client may repeat and that must take effect only once.
type IdempotencyKey struct {
	Principal   string // the owner of the key
	Key         string // drawn by the client
	Fingerprint string // of the request's content: another one under the same key is a mistake of the client
}

// SavedResponse is the response to the first request with a key, kept for its repetitions. Only the caller of InsertOnce
// knows its format.
type SavedResponse []byte

// ErrInProgress says that another request with the same key is in progress.
var ErrInProgress = fault.New(fault.Conflict, "idempotency_in_progress",
	"a request with this key is in progress; repeat this one to get its response")

// ErrKeyReused says that the key belongs to a request with another fingerprint.
var ErrKeyReused = fault.New(fault.Invalid, "idempotency_key_reused",
	"the key was used for another request; draw a new one")

// ScheduledDeletion says that objects below Prefix may exist and will be deleted once Due has passed, unless the intent is adopted.
type ScheduledDeletion struct {
	Prefix  string // ends in a slash
	ImageID ImageID
	Due     time.Duration // from the database's now
}

// ErrOutcomeUnknown says that a transaction may or may not have happened.
var ErrOutcomeUnknown = fault.New(fault.Unavailable, "outcome_unknown",
	"the connection to the database broke while the change was being committed: it may or may not have happened")

// ErrDeletionStarted says that an attempt's objects are being deleted: it came too late and has to start again.
var ErrDeletionStarted = fault.New(fault.Conflict, "prefix_doomed", "the attempt's objects are being removed")

// Pipelines keeps every specification that was ever asked for, by its hash.
type Pipelines interface {
	// SavePipeline records a specification's document (JSON). Saving the same hash again changes nothing.
	SavePipeline(ctx context.Context, hash string, document []byte) error
	// Pipeline returns the document. fault.NotFound if the hash was never saved.
	Pipeline(ctx context.Context, hash string) ([]byte, error)
}

// Document is a product as the API answers it, ready to be sent.
type Document struct {
	Version int64
	Missing bool   // there is no such product (at that version); no ETag, no Body
	ETag    string // with its quotes
	Body    []byte // JSON; shared, must not be changed
}

// FillOutcome says what became of a Fill.
type FillOutcome int

// The outcomes.
const (
	Filled  FillOutcome = iota + 1 // stored, or the same version was there
	Stale                          // the cache knows of a newer version: read again
	TooSlow                        // the read began too long ago to be trusted: not stored
)

// Cache keeps documents by product id and version. It may lose anything at any time, and never returns what Forget has
// made old. All methods may be called concurrently. An error is a miss: no caller fails because of it.
type Cache interface {
	// Get returns the document, or false for a miss.
	Get(ctx context.Context, id ProductID) (Document, bool, error)

	// Fill stores doc unless the cache holds something newer. began is the moment before doc was read from the store.
	Fill(ctx context.Context, id ProductID, doc Document, began time.Time) (FillOutcome, error)

	// Invalidate makes everything older than version unreadable, also what a slow Fill brings later.
	Invalidate(ctx context.Context, id ProductID, version int64) error
}
