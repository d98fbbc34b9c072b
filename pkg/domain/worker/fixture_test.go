package worker_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// fixture is a worker with fake dependencies. They run the functions that a test sets, and record the calls.
type fixture struct {
	*worker.Worker
	deps      worker.Deps
	mu        sync.Mutex
	calls     []string // methods of the catalogue in order: "begin", "finish", ...
	failure   *media.Failure
	wait      time.Duration // of the last Defer or Postpone
	postponed catalog.Job
	result    catalog.Result
	objects   map[string]string // key: content type
	logs      *observer.ObservedLogs
	reg       *prometheus.Registry

	begin      func(ctx context.Context, r catalog.Job) (catalog.Attempt, error)
	recordErr  func(method string) error // the result of recording an outcome
	fetch      func(ctx context.Context, url string) (worker.Download, error)
	render     func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
	renderSafe func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error)
	put        func(ctx context.Context, key string) error
	compare    func(files []media.Comparison) ([]media.Score, error)
	read       func(key string, limit int64) ([]byte, error)
	lookUp     func(hash string) ([]byte, error)
	pipe       pipeline.Pipeline
	rules      pipeline.Fetch // of the last download
	limit      int64          // of the last download
	policy     pipeline.Retry // of the last retry
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	w := &fixture{objects: map[string]string{}, logs: logs, reg: prometheus.NewRegistry(), pipe: pipeline.Default()}
	w.begin = func(_ context.Context, r catalog.Job) (catalog.Attempt, error) {
		return catalog.Attempt{
			Job: r, FencingToken: 1, Prefix: "products/1/2/1-x/", SourceURL: "https://example.com/a.jpg", Number: 1,
		}, nil
	}
	w.recordErr = func(string) error { return nil }
	w.fetch = func(context.Context, string) (worker.Download, error) {
		return worker.Download{Body: []byte("source"), SHA256: "ab"}, nil
	}
	w.render = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		shared := []byte("jpeg")
		return media.Rendered{Format: pipeline.PNG, Width: 30, Height: 20, Files: []media.EncodedFile{
			{Name: "full", Format: pipeline.JPEG, Width: 30, Height: 20, Score: 70.25, Default: true, Body: shared},
			{Name: "card", Format: pipeline.JPEG, Width: 30, Height: 20, Body: shared},
			{Name: "full", Format: pipeline.WebP, Width: 30, Height: 20, Body: []byte("webp")},
		}}, nil
	}
	w.renderSafe = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, errors.New("unexpected call of RenderSafe")
	}
	w.put = func(context.Context, string) error { return nil }
	w.lookUp = func(string) ([]byte, error) { return nil, fault.New(fault.NotFound, "pipeline_not_found", "no") }
	w.deps = worker.Deps{
		Catalog: w, Pipelines: w, Source: source{w}, Codec: codec{w}, Objects: store{w},
		Breakers: worker.NewBreakers(breakerConfig(), prometheus.NewRegistry(), zap.NewNop()),
		Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(w.pipe) }, Now: time.Now, Log: zap.New(core),
	}
	w.Worker = worker.New(w.deps, workerConfig(), w.reg)
	return w
}

func workerConfig() worker.Config {
	return worker.Config{
		Concurrency: 4, StoreTimeout: time.Minute, OutcomeTimeout: time.Minute, DeferDelay: 5 * time.Second,
		SlotWait: time.Millisecond, BusyDelay: time.Second, CanaryKeep: time.Hour,
	}
}

// useBreakers makes the worker report to c.
func (w *fixture) useBreakers(c *worker.Breakers) {
	w.deps.Breakers = c
	w.Worker = worker.New(w.deps, workerConfig(), prometheus.NewRegistry())
}

func (w *fixture) failPut(err error) { w.put = func(context.Context, string) error { return err } }

func (w *fixture) failRender(err error) {
	w.render = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) { return media.Rendered{}, err }
}

// failRecord makes the download fail permanently, and the recording of that outcome return err.
func (w *fixture) failRecord(err error) {
	w.fetch = func(context.Context, string) (worker.Download, error) {
		return worker.Download{}, media.Fail(media.HTTPStatus, "404", nil)
	}
	w.recordErr = func(string) error { return err }
}

func (w *fixture) failBegin(err error) {
	w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) { return catalog.Attempt{}, err }
}

// message returns a job for image 2 of product 1.
func (w *fixture) message() event.Message {
	return w.messageFor(w.pipe.Hash())
}

func (w *fixture) messageFor(hash string) event.Message {
	return event.New("job-1", "1", event.ImageRequested{
		ProductID: 1, ImageID: 2, SourceURL: "https://example.com/a.jpg", PipelineHash: hash,
	})
}

func (w *fixture) called(method string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, method)
}

func (w *fixture) Begin(ctx context.Context, r catalog.Job, _ time.Duration) (catalog.Attempt, error) {
	w.called("begin")
	return w.begin(ctx, r)
}

func (w *fixture) Postpone(_ context.Context, r catalog.Job, _ *media.Failure, _ pipeline.Retry, wait time.Duration) error {
	w.called("postpone")
	w.mu.Lock()
	w.postponed, w.wait = r, wait
	w.mu.Unlock()
	return w.recordErr("postpone")
}

// deferredFor returns the codes of the deferrals that were logged.
func (w *fixture) deferredFor() []any {
	var codes []any
	for _, l := range w.logs.FilterMessage("image deferred").All() {
		codes = append(codes, l.ContextMap()["code"])
	}
	return codes
}

func (w *fixture) Finish(_ context.Context, _ catalog.Attempt, r catalog.Result) error {
	w.called("finish")
	w.mu.Lock()
	w.result = r
	w.mu.Unlock()
	return w.recordErr("finish")
}

func (w *fixture) Retry(_ context.Context, _ catalog.Attempt, f *media.Failure, policy pipeline.Retry) error {
	w.called("retry")
	w.mu.Lock()
	w.failure, w.policy = f, policy
	w.mu.Unlock()
	return w.recordErr("retry")
}

func (w *fixture) Defer(_ context.Context, _ catalog.Attempt, f *media.Failure, _ pipeline.Retry, wait time.Duration) error {
	w.called("defer")
	w.mu.Lock()
	w.failure, w.wait = f, wait
	w.mu.Unlock()
	return w.recordErr("defer")
}

func (w *fixture) Fail(_ context.Context, _ catalog.Attempt, f *media.Failure) error {
	w.called("fail")
	w.mu.Lock()
	w.failure = f
	w.mu.Unlock()
	return w.recordErr("fail")
}

func (w *fixture) Release(ctx context.Context, _ catalog.Attempt) error {
	w.called("release")
	if ctx.Err() != nil {
		return errors.New("Release was called with an ended context")
	}
	return w.recordErr("release")
}

func (w *fixture) Skip(context.Context, catalog.Attempt) error {
	w.called("skip")
	return w.recordErr("skip")
}

func (w *fixture) ForgetOriginal(_ context.Context, _ catalog.ProductID, _ catalog.ImageID, key string) error {
	w.called("forget " + key)
	return w.recordErr("forget")
}

func (w *fixture) SavePipeline(context.Context, string, []byte) error { return nil }

func (w *fixture) Pipeline(_ context.Context, hash string) ([]byte, error) {
	w.called("pipeline")
	return w.lookUp(hash)
}

type source struct{ w *fixture }

func (s source) Fetch(
	ctx context.Context, url string, rules pipeline.Fetch, maxBytes int64,
) (worker.Download, error) {
	s.w.mu.Lock()
	s.w.rules, s.w.limit = rules, maxBytes
	s.w.mu.Unlock()
	return s.w.fetch(ctx, url)
}

type codec struct{ w *fixture }

func (c codec) Render(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
	return c.w.render(ctx, body, spec)
}

func (c codec) RenderSafe(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
	return c.w.renderSafe(ctx, body, spec)
}

func (c codec) Compare(_ context.Context, _ []byte, _ pipeline.Spec, files []media.Comparison) ([]media.Score, error) {
	return c.w.compare(files)
}

type store struct{ w *fixture }

func (s store) PutNoStore(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	return s.Put(ctx, key, contentType+"; no-store", body, size)
}

func (s store) Read(_ context.Context, key string, limit int64) ([]byte, error) {
	return s.w.read(key, limit)
}

func (s store) Put(ctx context.Context, key, contentType string, _ io.ReadSeeker, _ int64) error {
	if err := s.w.put(ctx, key); err != nil {
		return err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.objects[key] = contentType
	return nil
}

// hangingCatalog calls hang for Finish and Release.
type hangingCatalog struct {
	*fixture
	hang func(ctx context.Context, method string) error
}

func (h hangingCatalog) Finish(ctx context.Context, _ catalog.Attempt, _ catalog.Result) error {
	return h.hang(ctx, "finish")
}

func (h hangingCatalog) Release(ctx context.Context, _ catalog.Attempt) error {
	return h.hang(ctx, "release")
}
