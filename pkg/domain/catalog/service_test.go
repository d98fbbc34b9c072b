package catalog_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestCreate(t *testing.T) {
	t.Parallel()

	t.Run("every_image_is_queued_under_its_job_id", testCreateEveryImageIsQueuedUnderItsJobID)
	t.Run("pipeline_is_saved", testCreatePipelineIsSaved)
	t.Run("pipeline_in_force_is_requested", testCreatePipelineInForceIsRequested)
	t.Run("cached_404_of_new_id_is_invalidated", testCreateCached404OfNewIDIsInvalidated)
	t.Run("unknown_outcome_is_returned", testCreateUnknownOutcomeIsReturned)
	t.Run("invalid_input_writes_nothing", testCreateInvalidInputWritesNothing)
}

func testCreateEveryImageIsQueuedUnderItsJobID(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	requests := h.store.sent(event.TypeImageRequested)
	if len(requests) != 2 {
		t.Fatalf("got %d requests, want 2", len(requests))
	}
	for i, r := range requests {
		img := p.Images[i]
		if r.ID != img.JobID || img.JobState != catalog.Queued || img.Status != catalog.Pending {
			t.Errorf("image %d: job %q state %s status %s, request %q", i, img.JobID, img.JobState, img.Status, r.ID)
		}
		req, err := event.Decode[event.ImageRequested](r.Message)
		if err != nil || req.ImageID != int64(img.ID) || req.PipelineHash != pipeline.Default().Hash() {
			t.Errorf("request %+v, %v", req, err)
		}
		if r.Key != p.ID.String() {
			t.Errorf("key %q, want the product's id", r.Key)
		}
	}
	if changed := h.store.sent(event.TypeProductChanged); len(changed) != 1 {
		t.Errorf("got %d product.changed, want 1", len(changed))
	}
	if h.wakes.Load() == 0 {
		t.Error("the relay was not woken")
	}
}

func testCreatePipelineIsSaved(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.create(t, 1)
	doc, err := h.store.Pipeline(t.Context(), pipeline.Default().Hash())
	if err != nil {
		t.Fatal(err)
	}
	got, err := pipeline.Parse(doc)
	if err != nil || got.Hash() != pipeline.Default().Hash() {
		t.Errorf("the saved pipeline is %s, %v", got.Hash(), err)
	}
}

func testCreatePipelineInForceIsRequested(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	before := h.create(t, 1)
	next := pipeline.Default()
	next.Spec.Renditions = next.Spec.Renditions[1:]
	h.Pipeline = func() *pipeline.Revision { return pipeline.NewRevision(next) }
	for range 2 {
		if after := h.create(t, 1); after.Images[0].PipelineHash != next.Hash() {
			t.Errorf("a new job has pipeline %s, want %s", after.Images[0].PipelineHash, next.Hash())
		}
	}
	if _, err := h.store.Pipeline(t.Context(), next.Hash()); err != nil {
		t.Errorf("the new pipeline is not saved: %v", err)
	}
	if old := h.product(t, before.ID).Images[0]; old.PipelineHash != pipeline.Default().Hash() {
		t.Errorf("an old image has pipeline %s", old.PipelineHash)
	}
}

func testCreateCached404OfNewIDIsInvalidated(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if _, err := h.Get(t.Context(), 1); !fault.Is(err, fault.NotFound) {
		t.Fatalf("got %v, want not found", err)
	}
	p := h.create(t, 0)
	doc, err := h.Get(t.Context(), p.ID)
	if err != nil || doc.Version != 1 {
		t.Errorf("got version %d, %v, want 1", doc.Version, err)
	}
}

func testCreateUnknownOutcomeIsReturned(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.create(t, 0) // saves the pipeline
	h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
	_, err := h.Create(t.Context(), input(), "")
	if !errors.Is(err, catalog.ErrOutcomeUnknown) || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v, want outcome unknown", err)
	}
}

func testCreateInvalidInputWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Create(t.Context(), catalog.NewProductInput{}, "")
	if !fault.Is(err, fault.Invalid) || len(fault.From(err).Fields) != 3 {
		t.Errorf("got %v, want three wrong fields", err)
	}
	if len(h.store.products) != 0 || len(h.store.outbox) != 0 {
		t.Error("something was written")
	}
}

func TestGet(t *testing.T) {
	t.Parallel()

	t.Run("second_lookup_is_a_cache_hit", testGetSecondLookupIsACacheHit)
	t.Run("cache_error_is_a_miss", testGetCacheErrorIsAMiss)
	t.Run("stale_read_is_repeated", testGetStaleReadIsRepeated)
	t.Run("deleted_product_is_cached_as_missing", testGetDeletedProductIsCachedAsMissing)
	t.Run("encoder_error_is_returned", testGetEncoderErrorIsReturned)
}

func testGetSecondLookupIsACacheHit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	var reads atomic.Int64
	h.store.onRead = func() { reads.Add(1) }
	for range 3 {
		if _, err := h.Get(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := reads.Load(); got != 1 {
		t.Errorf("got %d reads of the store, want 1", got)
	}
}

func testGetCacheErrorIsAMiss(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.cache.setBroken(errors.New("down"))
	p := h.create(t, 0)
	if _, err := h.Get(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

func testGetStaleReadIsRepeated(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	var once sync.Once
	h.store.onRead = func() { // version 1 has been read; now version 2 is committed and invalidated
		once.Do(func() {
			h.store.change(p.ID, func(p *catalog.Product) { p.Version = 2 })
			if err := h.Invalidate(t.Context(), p.ID, 2); err != nil {
				t.Error(err)
			}
		})
	}
	doc, err := h.Get(t.Context(), p.ID)
	if err != nil || doc.Version != 2 {
		t.Errorf("got version %d, %v, want 2", doc.Version, err)
	}
	if cached := h.cache.docs[p.ID]; cached.Version != 2 {
		t.Errorf("the cache holds version %d, want 2", cached.Version)
	}
}

func testGetDeletedProductIsCachedAsMissing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	h.store.change(p.ID, func(p *catalog.Product) { p.Version, p.Deleted = 7, true })
	if err := h.Invalidate(t.Context(), p.ID, 7); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Get(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
	if doc := h.cache.docs[p.ID]; !doc.Missing || doc.Version != 7 {
		t.Errorf("the cache holds %+v, want missing at 7", doc)
	}
}

func testGetEncoderErrorIsReturned(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	h.store.change(p.ID, func(p *catalog.Product) { p.Name = "unencodable" })
	if _, err := h.Get(t.Context(), p.ID); fault.KindOf(err) != fault.Internal || err == nil {
		t.Errorf("got %v, want an internal error", err)
	}
}

func TestGetShared(t *testing.T) {
	t.Parallel()

	t.Run("invalidated_load_is_not_joined", testGetSharedInvalidatedLoadIsNotJoined)
	t.Run("joined_load_overtaken_by_other_process_is_repeated", testGetSharedJoinedLoadOvertakenByOtherProcessIsRepeated)
	t.Run("many_lookups_share_two_loads", testGetSharedManyLookupsShareTwoLoads)
	t.Run("lost_cache_entry_does_not_return_older_version", testGetSharedLostCacheEntryDoesNotReturnOlderVersion)
	t.Run("cancelled_lookup_does_not_fail_the_others", testGetSharedCancelledLookupDoesNotFailTheOthers)
	t.Run("panic_in_load_is_an_error", testGetSharedPanicInLoadIsAnError)
}

func testGetSharedInvalidatedLoadIsNotJoined(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.cache.setBroken(errors.New("down")) // the load is the only possible source of an old version
	p := h.create(t, 0)
	reading, proceed := make(chan struct{}), make(chan struct{})
	var started atomic.Bool
	h.store.onRead = func() {
		if started.CompareAndSwap(false, true) { // not sync.Once: the second read must not wait for the first
			close(reading)
			<-proceed
		}
	}
	old := make(chan catalog.Document, 1)
	go func() {
		doc, _ := h.Get(context.WithoutCancel(t.Context()), p.ID)
		old <- doc
	}()
	<-reading
	h.store.change(p.ID, func(p *catalog.Product) { p.Version = 2 })
	_ = h.Invalidate(t.Context(), p.ID, 2) // the cache is down: only the running load is detached
	doc, err := h.Get(t.Context(), p.ID)
	close(proceed)
	<-old
	if err != nil || doc.Version != 2 {
		t.Errorf("got version %d, %v, want 2", doc.Version, err)
	}
}

func testGetSharedJoinedLoadOvertakenByOtherProcessIsRepeated(t *testing.T) {
	t.Parallel()
	for name, refilled := range map[string]bool{"from_store": false, "from_cache": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testOvertakenLoad(t, refilled) })
		})
	}
}

func testGetSharedManyLookupsShareTwoLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		p := h.create(t, 0)
		h.cache.setBroken(errors.New("down"))
		proceed := make(chan struct{})
		var reads atomic.Int64
		h.store.onRead = func() {
			reads.Add(1)
			<-proceed
		}
		done := make(chan error, 100)
		get := func() { _, err := h.Get(t.Context(), p.ID); done <- err }
		go get()
		synctest.Wait() // the load reads the store
		for range cap(done) - 1 {
			go get()
		}
		for range 2 {
			synctest.Wait()
			proceed <- struct{}{}
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := reads.Load(); got != 2 {
			t.Errorf("got %d reads, want the running load and one for all other lookups", got)
		}
	})
}

func testGetSharedLostCacheEntryDoesNotReturnOlderVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		p := h.create(t, 0)
		h.store.change(p.ID, func(p *catalog.Product) { p.Version = 2 })
		proceed := make(chan struct{})
		h.store.onRead = func() { <-proceed }
		got := make(chan catalog.Document, 2)
		for range cap(got) {
			go func() {
				doc, err := h.Get(t.Context(), p.ID)
				if err != nil {
					t.Error(err)
				}
				got <- doc
			}()
			synctest.Wait()
		}
		h.cache.filled = func() { // the fill of version 2 is lost, and an older version is cached
			h.cache.mu.Lock()
			defer h.cache.mu.Unlock()
			h.cache.docs[p.ID] = catalog.Document{Version: 1, ETag: `"1-t"`, Body: []byte("{}")}
		}
		close(proceed)
		for range cap(got) {
			if doc := <-got; doc.Version != 2 {
				t.Errorf("got version %d, want 2", doc.Version)
			}
		}
	})
}

func testGetSharedCancelledLookupDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		p := h.create(t, 0)
		proceed := make(chan struct{})
		h.store.onRead = func() { <-proceed }
		ctx, cancel := context.WithCancel(t.Context())
		cancelled, waiting := make(chan error, 1), make(chan error, 1)
		go func() { _, err := h.Get(ctx, p.ID); cancelled <- err }()
		synctest.Wait() // the load reads the store
		go func() { _, err := h.Get(t.Context(), p.ID); waiting <- err }()
		synctest.Wait() // the second lookup has joined the load
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled lookup got %v", err)
		}
		close(proceed)
		if err := <-waiting; err != nil {
			t.Errorf("the other lookup got %v", err)
		}
	})
}

func testGetSharedPanicInLoadIsAnError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	h.store.onRead = func() { panic("broken") }
	if _, err := h.Get(t.Context(), p.ID); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("got %v, want an internal error", err)
	}
}

// testOvertakenLoad starts a lookup while a load has filled the cache and not returned yet, and another process has
// committed and announced a change since. If refilled is set, the cache has the new version before the load returns.
func testOvertakenLoad(t *testing.T, refilled bool) {
	t.Helper()
	h := newHarness(t)
	p := h.create(t, 0)
	release := make(chan struct{})
	var once atomic.Bool
	h.cache.filled = func() {
		if once.CompareAndSwap(false, true) {
			<-release
		}
	}
	first, second := make(chan catalog.Document, 1), make(chan catalog.Document, 1)
	read := func(to chan<- catalog.Document) {
		doc, err := h.Get(t.Context(), p.ID)
		if err != nil {
			t.Error(err)
		}
		to <- doc
	}
	go read(first)
	synctest.Wait() // version 1 is in the cache
	h.store.change(p.ID, func(p *catalog.Product) { p.Version = 2 })
	if err := h.cache.Invalidate(t.Context(), p.ID, 2); err != nil {
		t.Fatal(err)
	}
	go read(second)
	synctest.Wait() // the second lookup missed the cache and has joined the load
	var reads atomic.Int64
	h.store.onRead = func() { reads.Add(1) }
	if refilled {
		doc := catalog.Document{Version: 2, ETag: `"2-t"`, Body: []byte("{}")}
		if _, err := h.cache.Fill(t.Context(), p.ID, doc, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	<-first // the lookup began before the change, so that either version is correct
	if doc := <-second; doc.Version != 2 {
		t.Errorf("a lookup after the announcement got version %d, want 2", doc.Version)
	}
	if refilled && reads.Load() > 0 {
		t.Errorf("got %d reads of the store, want none: the cache has the new version", reads.Load())
	}
}

func TestHandleChanged(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	if _, err := h.Get(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	m := event.New("e", event.Key(int64(p.ID)), event.ProductChanged{ProductID: int64(p.ID), Version: 2})

	h.cache.setBroken(errors.New("down"))
	if err := h.HandleChanged(t.Context(), m); err == nil {
		t.Error("an invalidation that the cache did not accept must be an error")
	}
	h.cache.setBroken(nil)
	for range 2 { // the second time changes nothing
		if err := h.HandleChanged(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if _, ok := h.cache.docs[p.ID]; ok {
		t.Error("the old document is still cached")
	}
	if err := h.HandleChanged(t.Context(), event.Message{Type: "x"}); err == nil {
		t.Error("another event must be an error")
	}
}

func TestUserAndList(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if _, err := h.CreateUser(t.Context(), "", "no"); len(fault.From(err).Fields) != 2 {
		t.Errorf("got %v, want two wrong fields", err)
	}
	u, err := h.CreateUser(t.Context(), "Ada", "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := h.User(t.Context(), u.ID); err != nil || got.Email != u.Email {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := h.User(t.Context(), 404); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
	h.create(t, 0)
	page, err := h.List(t.Context(), catalog.Query{UserID: 1, Sort: catalog.NewestFirst, Limit: 20})
	if err != nil || len(page.Products) != 1 {
		t.Errorf("got %d products, %v", len(page.Products), err)
	}
	if _, err := h.List(t.Context(), catalog.Query{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
	h.store.afterCommit = func() error { return errors.New("down") }
	if _, err := h.List(t.Context(), catalog.Query{UserID: 1, Sort: catalog.NewestFirst, Limit: 20}); err == nil {
		t.Error("an error of the store must be returned")
	}
	if _, err := h.CreateUser(t.Context(), "Grace", "grace@example.com"); err == nil {
		t.Error("an error of the store must be returned")
	}
}
