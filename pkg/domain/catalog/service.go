package catalog

import (
	"context"
	"errors"
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

// Encoder makes the finished JSON of a product and its ETag.
type Encoder interface {
	Encode(p Product) (body []byte, etag string, err error)
}

// Deps are what a Service is made of.
type Deps struct {
	Store     Store
	Pipelines Pipelines
	Cache     Cache
	Encoder   Encoder                   // nil where nothing is read through the cache (the worker)
	Pipeline  func() *pipeline.Revision // the one in force, which new requests name
	NewID     func() string             // a new UUID
	Random    func() float64            // from 0 up to 1, for the jitter of retries
	Now       func() time.Time          // only to measure how long a read took
	Wake      func()                    // tells this process's relay that the outbox has rows; nil where there is none
	Log       *zap.Logger
}

// Service is everything that can be done with users, products and pictures. Its methods may be called concurrently.
type Service struct {
	Deps
	cfg     Config
	loads   singleflight.Group
	loadSeq atomic.Int64 // orders questions and flights
	saved   sync.Map     // pipeline hashes known to be on record
}

// New returns a Service.
func New(parts Deps, cfg Config) *Service {
	if parts.Wake == nil {
		parts.Wake = func() {}
	}
	return &Service{Deps: parts, cfg: cfg}
}

// CreateUser adds a user. fault.Invalid lists every wrong field; fault.Conflict means that the e-mail address is taken.
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

// User returns a user, or fault.NotFound.
func (s *Service) User(ctx context.Context, id UserID) (User, error) {
	u, err := s.Store.User(ctx, id)
	if err != nil {
		return User{}, fmt.Errorf("load user: %w", err)
	}
	return u, nil
}

// Create adds a product and asks for its pictures, in one transaction. When it returns without an error, every picture will
// end ready or failed, whatever crashes. fault.Invalid lists every wrong field; ErrOutcomeUnknown means that the product may
// have been created.
func (s *Service) Create(ctx context.Context, in NewProductInput, traceparent string) (Product, error) {
	p, announce, err := s.draft(ctx, in, traceparent)
	if err != nil {
		return Product{}, err
	}
	if p, err = s.Store.Insert(ctx, p, announce); err != nil {
		return Product{}, fmt.Errorf("insert product: %w", err)
	}
	s.created(ctx, p)
	return p, nil
}

// CreateOnce is Create for a request that a client may repeat under the same key: it takes effect once, and every repetition
// gets the response that respond made of the product in its transaction. respond must be pure. replayed says that it is an
// earlier request's response. ErrInProgress and ErrKeyReused as for [Store]; a request that fails leaves the key unused.
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
		s.created(ctx, p)
	}
	return saved, replayed, nil
}

// draft returns the product that in describes, its pictures asked for, and what tells of it.
func (s *Service) draft(ctx context.Context, in NewProductInput, traceparent string,
) (Product, func(Product) []Outgoing, error) {
	p, err := NewProduct(in)
	if err != nil {
		return Product{}, nil, err
	}
	hash, err := s.recordPipeline(ctx)
	if err != nil {
		return Product{}, nil, fmt.Errorf("record pipeline: %w", err)
	}
	for i := range p.Images {
		p.Images[i].JobState, p.Images[i].JobID, p.Images[i].PipelineHash = Queued, s.NewID(), hash
	}
	changedID := s.NewID()
	return p, func(p Product) []Outgoing {
		out := []Outgoing{p.announcement(traceparent, changedID)}
		for i := range p.Images {
			out = append(out, p.Images[i].jobMessage(traceparent, 0))
		}
		return out
	}, nil
}

// created tells the relay and the cache of a new product: a 404 may have been cached for its id.
func (s *Service) created(ctx context.Context, p Product) {
	failpoint.Hit(failpoint.CreateCommitted)
	s.Wake()
	s.invalidate(ctx, p.ID, p.Version)
}

// recordPipeline makes sure that the pipeline which new requests name is on record, and returns its hash.
func (s *Service) recordPipeline(ctx context.Context) (string, error) {
	current := s.Pipeline()
	hash := current.Hash()
	if _, known := s.saved.Load(hash); known {
		return hash, nil
	}
	if err := s.Pipelines.SavePipeline(ctx, hash, current.Document()); err != nil {
		return "", err
	}
	s.saved.Store(hash, struct{}{})
	return hash, nil
}

// List returns one page of products. fault.Invalid lists every wrong field, by parameter.
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

// Get returns a product as the API answers it: from the cache, or from the store through the cache. fault.NotFound if there
// is none. Reads of one product that miss at the same time share one look into the store.
func (s *Service) Get(ctx context.Context, id ProductID) (Document, error) {
	doc, hit, err := s.Cache.Get(ctx, id)
	if err != nil || !hit { // a cache that fails is a miss; it counts its errors itself
		if doc, err = s.loadShared(ctx, id); err != nil {
			return Document{}, err
		}
	}
	if doc.Missing {
		return Document{}, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	return doc, nil
}

// loadResult is what a flight brought, and when it left.
type loadResult struct {
	doc     Document
	started int64
}

// loadShared loads the product in a flight that others may join. Who joins one that has left already does not know what it read: a
// change may have been announced by another process since, when the flight had filled the cache and not yet landed. So that
// flight is waited for and the next one taken, by all who waited, and it looks into the cache first.
func (s *Service) loadShared(ctx context.Context, id ProductID) (Document, error) {
	asked := s.loadSeq.Add(1)
	first, err := s.joinLoad(ctx, id, s.load)
	if err != nil || first.started > asked {
		return first.doc, err
	}
	next, err := s.joinLoad(ctx, id, s.readThrough)
	if err == nil && next.doc.Version < first.doc.Version { // the cache has lost what it was told
		return first.doc, nil
	}
	return next.doc, err
}

// joinLoad joins the product's flight, or begins one. A flight has a context of its own: the first caller's leaving must not
// fail the others.
func (s *Service) joinLoad(ctx context.Context, id ProductID,
	read func(context.Context, ProductID) (Document, error),
) (loadResult, error) {
	flight := s.loads.DoChan(id.String(), func() (result any, err error) {
		defer func() {
			if p := recover(); p != nil { // singleflight would panic again where nobody can recover
				err = fmt.Errorf("load product: panic: %v", p)
			}
		}()
		left := s.loadSeq.Add(1)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.LoadTimeout)
		defer cancel()
		doc, err := read(ctx, id)
		return loadResult{doc, left}, err
	})
	select {
	case <-ctx.Done():
		return loadResult{}, fmt.Errorf("load product: %w", ctx.Err())
	case landed := <-flight:
		if landed.Err != nil {
			return loadResult{}, landed.Err
		}
		result, _ := landed.Val.(loadResult)
		return result, nil
	}
}

// readThrough reads through the cache.
func (s *Service) readThrough(ctx context.Context, id ProductID) (Document, error) {
	if doc, hit, err := s.Cache.Get(ctx, id); err == nil && hit {
		return doc, nil
	}
	return s.load(ctx, id)
}

// load reads the product and offers it to the cache. If the cache knows that the read was overtaken, it reads once more:
// what is answered then is at least as new as what overtook it.
func (s *Service) load(ctx context.Context, id ProductID) (Document, error) {
	began := s.Now()
	doc, err := s.read(ctx, id)
	if err != nil {
		return Document{}, err
	}
	if outcome, _ := s.Cache.Fill(ctx, id, doc, began); outcome != Stale { // not stored is not wrong
		return doc, nil
	}
	began = s.Now()
	if doc, err = s.read(ctx, id); err != nil {
		return Document{}, err
	}
	_, _ = s.Cache.Fill(ctx, id, doc, began) // the cache counts its errors; the answer does not depend on it
	return doc, nil
}

// read makes the product's document from the store.
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

// invalidate makes what the cache holds of older versions unreadable, right after a commit. It is best effort: the
// product.changed event repeats it.
func (s *Service) invalidate(ctx context.Context, id ProductID, version int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.InvalidateTimeout)
	defer cancel()
	if err := s.Invalidate(ctx, id, version); err != nil {
		s.Log.Debug("cache not told of a change; its event will", zap.Int64("product_id", int64(id)), zap.Error(err))
	}
}

// Invalidate makes what the cache holds of older versions unreadable, and lets nobody join a read that began before. It returns
// only after the cache has accepted it; repeating it changes nothing.
func (s *Service) Invalidate(ctx context.Context, id ProductID, version int64) error {
	err := s.Cache.Invalidate(ctx, id, version)
	s.loads.Forget(id.String())
	return err
}

// HandleChanged is what the api does with a product.changed event. An error means that it has to come again.
func (s *Service) HandleChanged(ctx context.Context, m event.Message) error {
	changed, err := event.Decode[event.ProductChanged](m)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	failpoint.Hit(failpoint.ChangeReceived)
	if err := s.Invalidate(ctx, ProductID(changed.ProductID), changed.Version); err != nil {
		return fmt.Errorf("forget product: %w", err)
	}
	return nil
}

// isUnknown reports whether a transaction may have happened.
func isUnknown(err error) bool { return errors.Is(err, ErrOutcomeUnknown) }
