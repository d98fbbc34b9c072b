package catalog

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// DocumentEncoder makes the JSON that the API sends of a product, and its ETag.
type DocumentEncoder interface {
	Encode(p Product) (body []byte, etag string, err error)
}

// Deps are the dependencies of a Service.
type Deps struct {
	Store     Store
	Pipelines Pipelines
	Backfills Backfills // nil if the process never calls Begin with the job of a backfill
	Cache     Cache
	Encoder   DocumentEncoder           // nil if the process never calls Get (the worker)
	Pipeline  func() *pipeline.Revision // returns the pipeline in force, which new requests use
	NewID     func() string             // returns a new UUID
	Random    func() float64            // in [0, 1), for the jitter of delays
	Now       func() time.Time          // clock for the start of the reads that fill the cache
	Wake      func()                    // notifies this process's relay that the outbox has rows; nil if it has no relay
	Log       *zap.Logger
}

// Service is the use cases of users, products and images. Its methods may be called concurrently.
type Service struct {
	Deps
	cfg            Config
	loads          singleflight.Group
	loadSeq        atomic.Int64 // orders the starts of lookups and loads
	knownPipelines sync.Map     // hashes of the pipelines that are saved
}

// New returns a Service. cfg must be valid.
func New(deps Deps, cfg Config) *Service {
	if deps.Wake == nil {
		deps.Wake = func() {}
	}
	return &Service{Deps: deps, cfg: cfg}
}

// CreateUser adds a user. It returns a fault.Invalid that lists every wrong field, or fault.Conflict if the e-mail
// address is taken.
func (s *Service) CreateUser(ctx context.Context, name, email string) (User, error) {
	u, err := NewUser(name, email)
	if err != nil {
		return User{}, err
	}
	if u, err = s.Store.InsertUser(ctx, u); err != nil {
		return User{}, fmt.Errorf("insert user: %w", err)
	}
	return u, nil
}

// CreateUserOnce is CreateUser for a request that a client may repeat under one key, as CreateOnce is Create.
func (s *Service) CreateUserOnce(ctx context.Context, name, email string, key IdempotencyKey,
	respond func(User) (SavedResponse, error),
) (saved SavedResponse, replayed bool, err error) {
	u, err := NewUser(name, email)
	if err != nil {
		return nil, false, err
	}
	if saved, replayed, err = s.Store.InsertUserOnce(ctx, key, u, respond); err != nil {
		return nil, false, fmt.Errorf("insert user once: %w", err)
	}
	return saved, replayed, nil
}

// User returns a user, or fault.NotFound.
func (s *Service) User(ctx context.Context, id UserID) (User, error) {
	u, err := s.Store.User(ctx, id)
	if err != nil {
		return User{}, fmt.Errorf("load user: %w", err)
	}
	return u, nil
}

// Create adds a product and queues its images, in one transaction. After it returns without an error, every image becomes
// ready or failed, even if processes crash. It returns a fault.Invalid that lists every wrong field, or ErrOutcomeUnknown
// if the product may have been created.
func (s *Service) Create(ctx context.Context, in NewProductInput, traceparent string) (Product, error) {
	p, announce, err := s.draft(ctx, in, traceparent)
	if err != nil {
		return Product{}, err
	}
	if p, err = s.Store.Insert(ctx, p, announce); err != nil {
		return Product{}, fmt.Errorf("insert product: %w", err)
	}
	s.afterCreate(ctx, p)
	return p, nil
}

// CreateOnce is Create for a request that a client may repeat under one key. The first request creates the product and
// saves the response that respond makes of it; later requests get the saved response, and replayed is true. respond must
// be pure. It returns ErrInProgress and ErrKeyReused under the same conditions as [Store].InsertOnce. A request that
// fails leaves the key unused.
func (s *Service) CreateOnce(ctx context.Context, in NewProductInput, key IdempotencyKey,
	respond func(Product) (SavedResponse, error), traceparent string,
) (saved SavedResponse, replayed bool, err error) {
	p, announce, err := s.draft(ctx, in, traceparent)
	if err != nil {
		return nil, false, err
	}
	p, saved, replayed, err = s.Store.InsertOnce(ctx, key, p, announce, respond)
	if err != nil {
		return nil, false, fmt.Errorf("insert product once: %w", err)
	}
	if !replayed {
		s.afterCreate(ctx, p)
	}
	return saved, replayed, nil
}

// draft returns the product that in describes, with its images queued, and the function that makes its messages.
func (s *Service) draft(ctx context.Context, in NewProductInput, traceparent string,
) (Product, func(Product) []Outgoing, error) {
	p, err := NewProduct(in)
	if err != nil {
		return Product{}, nil, err
	}
	hash, err := s.RecordPipeline(ctx)
	if err != nil {
		return Product{}, nil, fmt.Errorf("record pipeline: %w", err)
	}
	for i := range p.Images { // the store dates the requests
		p.Images[i].request(newJob{hash: hash, id: s.NewID(), traceparent: traceparent, class: Live}, time.Time{})
	}
	changedID := s.NewID()
	return p, func(p Product) []Outgoing { return []Outgoing{p.changedMessage(traceparent, changedID)} }, nil
}

// afterCreate wakes the relay and invalidates the cache, which may contain a "does not exist" for the new id.
func (s *Service) afterCreate(ctx context.Context, p Product) {
	failpoint.Hit(failpoint.CreateCommitted)
	s.Wake()
	s.invalidate(ctx, p.ID, p.Version)
}

// RecordPipeline saves the pipeline in force, unless this process has saved it before, and returns its hash.
func (s *Service) RecordPipeline(ctx context.Context) (string, error) {
	current := s.Pipeline()
	hash := current.Hash()
	if _, known := s.knownPipelines.Load(hash); known {
		return hash, nil
	}
	if err := s.Pipelines.SavePipeline(ctx, hash, current.Document()); err != nil {
		return "", err
	}
	s.knownPipelines.Store(hash, struct{}{})
	return hash, nil
}

// List returns one page of products. It returns a fault.Invalid that lists every wrong field by the parameter's name.
func (s *Service) List(ctx context.Context, q Query) (Page, error) {
	if err := fault.InvalidFields(q.Validate()); err != nil {
		return Page{}, err
	}
	page, err := s.Store.List(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("list products: %w", err)
	}
	return page, nil
}

// Get returns a product as the API sends it, from the cache or else from the store; in the second case it fills the
// cache. It returns fault.NotFound if the product does not exist. Concurrent lookups of one product that miss the cache
// share a load from the store.
func (s *Service) Get(ctx context.Context, id ProductID) (Document, error) {
	if doc, hit, err := s.Cached(ctx, id); hit {
		return doc, err
	}
	return s.Load(ctx, id)
}

// Cached is Get without the store. hit is false if the cache does not know the product.
func (s *Service) Cached(ctx context.Context, id ProductID) (doc Document, hit bool, err error) {
	doc, hit, failure := s.Cache.Get(ctx, id)
	if failure != nil || !hit { // a cache that fails is a miss; it counts its errors itself
		return Document{}, false, nil //nolint:nilerr // see above
	}
	doc, err = existing(doc)
	return doc, true, err
}

// Load is Get of a product that the cache does not know.
func (s *Service) Load(ctx context.Context, id ProductID) (Document, error) {
	doc, err := s.loadShared(ctx, id)
	if err != nil {
		return Document{}, err
	}
	return existing(doc)
}

// existing returns doc, or fault.NotFound if it says that there is no product.
func existing(doc Document) (Document, error) {
	if doc.Missing {
		return Document{}, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	return doc, nil
}

// loadResult is the result of a load, and its place in the order of lookups and loads.
type loadResult struct {
	doc     Document
	started int64
}

// loadShared loads a product. Concurrent lookups of the product share the load. A lookup cannot use the result of a load
// that started before the lookup, because another process may have announced a change after the load had read the store.
// Such a lookup waits until the load ends and then joins the next one, which tries the cache first.
func (s *Service) loadShared(ctx context.Context, id ProductID) (Document, error) {
	lookup := s.loadSeq.Add(1)
	first, err := s.joinLoad(ctx, id, s.load)
	if err != nil || first.started > lookup {
		return first.doc, err
	}
	next, err := s.joinLoad(ctx, id, s.readThrough)
	if err == nil && next.doc.Version < first.doc.Version { // the cache has lost a fill or a tombstone
		return first.doc, nil
	}
	return next.doc, err
}

// joinLoad joins the product's running load, or starts one with read. A load does not end with the context of the lookup
// that started it, because others may have joined it.
func (s *Service) joinLoad(ctx context.Context, id ProductID,
	read func(context.Context, ProductID) (Document, error),
) (loadResult, error) {
	load := s.loads.DoChan(id.String(), func() (any, error) {
		result := loadResult{started: s.loadSeq.Add(1)}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.LoadTimeout)
		defer cancel()
		err := fault.Guard(func() (err error) { // singleflight would panic in a goroutine of its own, which ends the process
			result.doc, err = read(ctx, id)
			return err
		})
		return result, err
	})
	select {
	case <-ctx.Done():
		return loadResult{}, fmt.Errorf("load product: %w", ctx.Err())
	case loaded := <-load:
		if loaded.Err != nil {
			return loadResult{}, loaded.Err
		}
		result, _ := loaded.Val.(loadResult)
		return result, nil
	}
}

// readThrough returns the product from the cache, or else loads it.
func (s *Service) readThrough(ctx context.Context, id ProductID) (Document, error) {
	if doc, hit, err := s.Cache.Get(ctx, id); err == nil && hit {
		return doc, nil
	}
	return s.load(ctx, id)
}

// load reads the product from the store and fills the cache. If the cache knows a newer version, load reads a second time:
// that result is at least as new as the version that the cache knows.
func (s *Service) load(ctx context.Context, id ProductID) (doc Document, err error) {
	for range 2 {
		readStart := s.Now()
		if doc, err = s.read(ctx, id); err != nil {
			return Document{}, err
		}
		if outcome, _ := s.Cache.Fill(ctx, id, doc, readStart); outcome != Stale { // the cache counts its errors itself
			break
		}
	}
	return doc, nil
}

// read reads the product from the store and encodes it.
func (s *Service) read(ctx context.Context, id ProductID) (Document, error) {
	p, err := s.Store.Product(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return Document{Missing: true}, nil
	}
	if err != nil {
		return Document{}, fmt.Errorf("load product: %w", err)
	}
	if p.Deleted {
		return Document{Version: p.Version, Missing: true}, nil
	}
	body, etag, err := s.Encoder.Encode(p)
	if err != nil {
		return Document{}, fmt.Errorf("encode product: %w", err)
	}
	return Document{Version: p.Version, ETag: etag, Body: body}, nil
}

// invalidate calls Invalidate after a commit. An error is only logged, because the product.changed event repeats the
// invalidation.
func (s *Service) invalidate(ctx context.Context, id ProductID, version int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.InvalidateTimeout)
	defer cancel()
	if err := s.Invalidate(ctx, id, version); err != nil {
		s.Log.Debug("cache not invalidated; the product.changed event repeats it",
			zap.Int64("product_id", int64(id)), zap.Error(err))
	}
}

// Invalidate makes the cached versions below version unreadable, and detaches the product's running load, so that later
// lookups start a new one. It is idempotent. A nil error means that the cache has accepted it.
func (s *Service) Invalidate(ctx context.Context, id ProductID, version int64) error {
	err := s.Cache.Invalidate(ctx, id, version)
	s.loads.Forget(id.String())
	return err
}

// HandleChanged invalidates the product of a product.changed event. After an error the event must be delivered again.
func (s *Service) HandleChanged(ctx context.Context, m event.Message) error {
	changed, err := event.Decode[event.ProductChanged](m)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	failpoint.Hit(failpoint.ChangeReceived)
	if err := s.Invalidate(ctx, ProductID(changed.ProductID), changed.Version); err != nil {
		return fmt.Errorf("invalidate product: %w", err)
	}
	return nil
}
