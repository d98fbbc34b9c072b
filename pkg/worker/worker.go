package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"vitrine.io/pkg/backoff"
	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
	"vitrine.io/pkg/failpoint"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// uploads is how many renditions of one picture are stored at a time.
const uploads = 4

// Worker makes pictures. Handle may be called concurrently.
type Worker struct {
	catalog Catalog
	specs   *specs
	source  Source
	codec   Codec
	objects Objects
	current func() *pipeline.Revision
	now     func() time.Time
	cfg     Config
	metrics *metrics
	log     *zap.Logger
	hosts   hosts
	gate    *semaphore.Weighted // one for a picture among others, all for one that runs alone
}

// Catalog is what a worker tells about pictures; *catalog.Service says what the methods mean.
type Catalog interface {
	Begin(ctx context.Context, r catalog.Request, traceparent string, budget time.Duration) (catalog.Attempt, error)
	Finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error
	Retry(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry) error
	Defer(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry, wait time.Duration) error
	Fail(ctx context.Context, a catalog.Attempt, f *media.Failure) error
	Release(ctx context.Context, a catalog.Attempt) error
}

// Parts are what a Worker is made of.
type Parts struct {
	Catalog   Catalog
	Pipelines catalog.Pipelines
	Source    Source
	Codec     Codec
	Objects   Objects
	Pipeline  func() *pipeline.Revision // the one in force: how to fetch and how often to try
	Now       func() time.Time          // only to measure stages
	Log       *zap.Logger
}

// New returns a Worker.
func New(parts Parts, cfg Config, reg prometheus.Registerer) *Worker {
	return &Worker{
		catalog: parts.Catalog, source: parts.Source, codec: parts.Codec, objects: parts.Objects, current: parts.Pipeline,
		specs: &specs{store: parts.Pipelines, current: parts.Pipeline, known: map[string]pipeline.Spec{}},
		now:   parts.Now, cfg: cfg, metrics: newMetrics(reg), log: parts.Log,
		hosts: hosts{busy: map[string]int{}}, gate: semaphore.NewWeighted(math.MaxInt32),
	}
}

// Check reports why a message is not a request that Handle can read, or nil.
func Check(m event.Message) error {
	_, err := event.Decode[event.ImageRequested](m)
	return err
}

// Exclusive is what two messages share that must not be handled at the same time in one process: the picture.
func Exclusive(m event.Message) string {
	req, err := event.Decode[event.ImageRequested](m)
	if err != nil {
		return ""
	}
	return fmt.Sprint(req.ImageID)
}

// Handle does what one request asks for. nil means that the request has been dealt with, ready or not; an error means that
// it has to come again. When ctx ends, work in hand is released.
func (w *Worker) Handle(ctx context.Context, m event.Message) error {
	req, err := event.Decode[event.ImageRequested](m)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	r := catalog.Request{
		ProductID: catalog.ProductID(req.ProductID), ImageID: catalog.ImageID(req.ImageID), Ticket: m.ID,
	}
	rules := w.current().Spec().Fetch // of this attempt, whatever comes into force meanwhile
	free, ok := w.hosts.take(host(req.SourceURL), rules.PerHost)
	if !ok {
		busy := media.Fail(media.HostBusy, "as many pictures are being fetched from this host as its limit allows", nil)
		return w.settle(ctx, catalog.Attempt{Request: r, Traceparent: m.Traceparent}, busy, w.now())
	}
	free = sync.OnceFunc(free)
	defer free() // at the latest
	return w.attempt(ctx, r, req.PipelineHash, m.Traceparent, slot{rules, free})
}

// slot is leave to download from a host, which is given back when the source is here, and the rules it was given under.
type slot struct {
	rules pipeline.Fetch
	free  func()
}

// attempt begins, makes the picture and writes the outcome.
func (w *Worker) attempt(ctx context.Context, r catalog.Request, hash, traceparent string, s slot) error {
	if err := w.gate.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for a turn: %w", err)
	}
	held, began := int64(1), w.now()
	defer func() { w.gate.Release(held) }()

	spec, err := w.specs.get(ctx, hash)
	if f := media.FailureOf(err); f != nil {
		return w.settle(ctx, catalog.Attempt{Request: r, Traceparent: traceparent}, f, began)
	} else if err != nil {
		return fmt.Errorf("load pipeline: %w", err)
	}
	budget := w.budget(spec, s.rules)
	failpoint.Hit(failpoint.WorkerTaken)
	// Once for its turn to run alone, once for the work, once for an outcome that Postgres does not take at first.
	a, err := w.catalog.Begin(ctx, r, traceparent, 3*budget)
	switch {
	case errors.Is(err, catalog.ErrDone):
		w.metrics.outcome(done, "")
		w.picture(r, traceparent).Debug("request already dealt with")
		return nil
	case errors.Is(err, catalog.ErrGivenUp):
		return w.settled(catalog.Attempt{Request: r, Traceparent: traceparent}, failed, catalog.Died(), began, err)
	case err != nil:
		return err
	}
	w.metrics.inFlight.Inc()
	defer w.metrics.inFlight.Dec()
	failpoint.Hit(failpoint.WorkerBegun)

	if a.Alone {
		w.gate.Release(held)
		held = 0
		turn, cancel := context.WithTimeout(ctx, budget)
		err := w.gate.Acquire(turn, math.MaxInt32)
		cancel()
		if err != nil {
			return w.handBack(ctx, a, began, fmt.Errorf("wait to run alone: %w", err))
		}
		held = math.MaxInt32
	}
	work, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	return w.conclude(ctx, work, a, began, w.process(work, a, spec, s))
}

// budget is how long an attempt's work may take.
func (w *Worker) budget(spec pipeline.Spec, rules pipeline.Fetch) time.Duration {
	// Two pictures may be before this one at its codec process.
	return rules.Timeout.D() + 3*spec.Limits.Deadline.D() + w.cfg.StoreBudget
}

// conclude turns what process returned into an outcome. ctx ends when the process stops, work when the attempt's time is
// over.
func (w *Worker) conclude(ctx, work context.Context, a catalog.Attempt, began time.Time, err error) error {
	switch f := media.FailureOf(err); {
	case err == nil:
		return nil
	case errors.Is(err, catalog.ErrSuperseded):
		return w.settled(a, superseded, &media.Failure{}, began, catalog.ErrSuperseded)
	case f != nil && (ctx.Err() == nil || f.Code.Class() == media.Permanent):
		return w.settle(ctx, a, f, began)
	case ctx.Err() != nil: // whatever failed, failed because the process is stopping
		return w.handBack(ctx, a, began, fmt.Errorf("stopped: %w", ctx.Err()))
	case work.Err() != nil && errors.Is(err, work.Err()):
		return w.settle(ctx, a, media.Fail(media.CodecUnavailable, "there was no time left for the picture", err), began)
	default: // the outcome could not be written, or the objects are doomed: from Begin again
		return err
	}
}

// process makes one picture: fetch, render, store, finish.
func (w *Worker) process(ctx context.Context, a catalog.Attempt, spec pipeline.Spec, s slot) error {
	log := w.picture(a.Request, a.Traceparent).With(zap.Int("attempt", a.Number))
	began := w.now()

	src, err := w.source.Fetch(ctx, a.SourceURL, s.rules, int64(spec.Limits.MaxBytes))
	s.free()
	took := w.stage("fetch", began)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer src.Drop() // at the latest
	failpoint.Hit(failpoint.WorkerFetched)
	size := len(src.Body)
	w.metrics.bytesIn.Add(float64(size))
	log.Info("download done", zap.Int("bytes", size), zap.Duration("duration", took))

	rendering := w.now()
	made, err := w.render(ctx, a, src, spec)
	src.Drop() // nothing needs it while the renditions are stored
	took = w.stage("render", rendering)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	failpoint.Hit(failpoint.WorkerRendered)
	log.Info("picture compressed", zap.Int("renditions", len(made.Outputs)), zap.Int("dropped", len(made.Dropped)),
		zap.Int("bytes", made.Size()), zap.Duration("duration", took))

	storing := w.now()
	renditions, stored, err := w.store(ctx, a, made.Outputs)
	w.stage("store", storing)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	failpoint.Hit(failpoint.WorkerStored)
	w.metrics.bytesOut.Add(float64(stored))

	recording := w.now()
	err = w.finish(ctx, a, catalog.Result{
		Width: made.Width, Height: made.Height, Placeholder: made.Placeholder,
		SourceSHA256: src.SHA256, SourceBytes: int64(size), Renditions: renditions,
		Dropped: made.Dropped,
	})
	w.stage("finish", recording)
	if err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	w.metrics.outcome(ready, "")
	w.metrics.saved(size, made)
	log.Info("picture ready", zap.Int64("bytes", stored), zap.Duration("duration", w.stage("total", began)))
	return nil
}

// finish writes the result. All is made and stored, so neither a stop nor a database that is away for a moment may waste it:
// it is tried again, with growing pauses, as long as the attempt may take; repeating it is harmless.
func (w *Worker) finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error {
	pause := w.cfg.Settle / 10
	for {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Settle)
		err := w.catalog.Finish(try, a, r)
		cancel()
		if !fault.Is(err, fault.Unavailable) {
			return err
		}
		if !backoff.Sleep(ctx, pause) {
			return err
		}
		pause = min(2*pause, w.cfg.Settle)
	}
}

// store puts the outputs below the attempt's prefix. Outputs that share a body are stored once and share its key.
func (w *Worker) store(
	ctx context.Context, a catalog.Attempt, outputs []media.Output,
) ([]catalog.Rendition, int64, error) {
	renditions := make([]catalog.Rendition, len(outputs))
	keys := map[*byte]string{}
	var stored int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for i, out := range outputs {
		if len(out.Body) == 0 {
			return nil, 0, media.Fail(media.CodecCrashed, "the codec made an empty file of "+out.Name, g.Wait())
		}
		key, shared := keys[&out.Body[0]]
		if !shared {
			key = a.Prefix + out.Name + "." + out.Format.Extension()
			keys[&out.Body[0]] = key
			stored += int64(len(out.Body))
			g.Go(func() error {
				return w.objects.Put(ctx, key, out.Format.ContentType(), bytes.NewReader(out.Body), int64(len(out.Body)))
			})
		}
		renditions[i] = catalog.Rendition{
			Name: out.Name, Format: out.Format, Width: out.Width, Height: out.Height,
			Bytes: int64(len(out.Body)), Score: out.Score, Lowered: out.Lowered, Key: key,
			Default: out.Default,
		}
	}
	if err := g.Wait(); err != nil {
		return nil, 0, media.Fail(media.StorageFailed, "the renditions could not be stored", err)
	}
	return renditions, stored, nil
}

// stage measures a stage that began then and ends now.
func (w *Worker) stage(name string, began time.Time) time.Duration {
	took := w.now().Sub(began)
	w.metrics.stages.WithLabelValues(name).Observe(took.Seconds())
	return took
}

// picture is the log of everything about one picture.
func (w *Worker) picture(r catalog.Request, traceparent string) *zap.Logger {
	log := w.log.With(zap.Int64("product_id", int64(r.ProductID)), zap.Int64("image_id", int64(r.ImageID)),
		zap.String("event_id", r.Ticket))
	if id := event.TraceID(traceparent); id != "" {
		return log.With(zap.String("trace_id", id))
	}
	return log
}

// host is what a URL's downloads are counted under.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
}

// hosts counts downloads by host.
type hosts struct {
	mu   sync.Mutex
	busy map[string]int
}

// take returns a slot of the host and how to give it back, or false if the limit is reached. It never waits: a slow host
// must not hold up the others' pictures.
func (h *hosts) take(host string, limit int) (free func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[host] >= limit {
		return nil, false
	}
	h.busy[host]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.busy[host]--; h.busy[host] == 0 {
			delete(h.busy, host)
		}
	}, true
}
