package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/slots"
)

// uploads is how many files of one image are stored at a time.
const uploads = 4

// Worker handles jobs. Handle may be called concurrently.
type Worker struct {
	Deps
	specs     *specCache
	cfg       Config
	metrics   *metrics
	isolation *semaphore.Weighted // each attempt acquires one share; an isolated attempt acquires all
}

// Catalog is the part of *catalog.Service that a worker uses. The methods are documented there.
type Catalog interface {
	Begin(ctx context.Context, r catalog.Job, budget time.Duration) (catalog.Attempt, error)
	Postpone(ctx context.Context, r catalog.Job, f *media.Failure, policy pipeline.Retry, wait time.Duration) error
	Finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error
	Retry(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry) error
	Defer(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry, wait time.Duration) error
	Fail(ctx context.Context, a catalog.Attempt, f *media.Failure) error
	Release(ctx context.Context, a catalog.Attempt) error
	Skip(ctx context.Context, a catalog.Attempt) error
	ForgetOriginal(ctx context.Context, product catalog.ProductID, image catalog.ImageID, key string) error
}

// Deps are the dependencies of a Worker.
type Deps struct {
	Catalog   Catalog
	Pipelines catalog.Pipelines
	Source    Source
	Codec     Codec
	Objects   Objects
	Samples   Samples
	Originals Originals                 // nil: none are kept or read
	Memory    Memory                    // of originals that are read, shared with Source; nil: without a limit
	Breakers  *Breakers                 // receive the results of operations
	Egress    *Egress                   // nil: every failed connection is the source's fault
	Hosts     *slots.Slots[string]      // downloads by catalog.HostKey, shared with Source for redirects; nil: its own
	Pipeline  func() *pipeline.Revision // the revision in force: its rules for downloads and retries
	Now       func() time.Time          // for durations only
	Log       *zap.Logger
}

// New returns a Worker and registers its metrics with reg.
func New(deps Deps, cfg Config, reg prometheus.Registerer) *Worker {
	if deps.Hosts == nil {
		deps.Hosts = slots.New[string]()
	}
	return &Worker{
		Deps: deps, cfg: cfg, metrics: newMetrics(reg),
		specs:     &specCache{store: deps.Pipelines, current: deps.Pipeline, known: map[string]pipeline.Spec{}},
		isolation: semaphore.NewWeighted(math.MaxInt32),
	}
}

// Check returns nil if m is a request that Handle can decode.
func Check(m event.Message) error {
	_, err := decode(m)
	return err
}

// decode returns the job or the sample in m. A job of class live or bulk has no BackfillID.
func decode(m event.Message) (event.ImageBackfill, error) {
	switch m.Type {
	case event.TypeImageBackfill:
		return event.Decode[event.ImageBackfill](m)
	case event.TypeImageCanary:
		sample, err := event.Decode[event.ImageCanary](m)
		return event.ImageBackfill(sample), err
	}
	req, err := event.Decode[event.ImageRequested](m)
	return event.ImageBackfill{
		ProductID: req.ProductID, ImageID: req.ImageID, SourceURL: req.SourceURL, PipelineHash: req.PipelineHash,
	}, err
}

// OrderingKey returns the image id of a job, or "" if m cannot be decoded. A consumer does not handle messages with equal
// keys at the same time. Two consumers may, and the fencing token of the image then lets one of the attempts finish.
func OrderingKey(m event.Message) string {
	req, err := decode(m)
	if err != nil {
		return ""
	}
	return fmt.Sprint(req.ImageID)
}

// Handle handles one job. It returns nil when the job is complete; a job is also complete when the image has failed. It
// returns an error when the message has to be delivered again. When ctx ends, the attempt is released.
func (w *Worker) Handle(ctx context.Context, m event.Message) error {
	if m.Type == event.TypeImageCanary {
		return w.handleSample(ctx, m)
	}
	t, err := w.newTask(m)
	if err != nil {
		return err
	}
	defer func() { w.isolation.Release(t.shares); t.releaseHost() }()
	if err := w.admit(ctx, t); err != nil {
		return w.postpone(ctx, t, err)
	}
	if begun, err := w.begin(ctx, t); !begun {
		return err
	}
	w.metrics.inFlight.Inc()
	defer w.metrics.inFlight.Dec()
	failpoint.Hit(failpoint.WorkerBegun)
	return w.report(ctx, t, w.process(ctx, t))
}

// task is a job that Handle works on, and the resources that are acquired for it.
type task struct {
	catalog.Job
	sourceURL, pipelineHash string
	original                bool            // the job is to read the original, so it needs no host slot
	attempt                 catalog.Attempt // set by begin
	spec                    pipeline.Spec   // the specification that the job names
	rules                   pipeline.Fetch  // the rules in force when the job arrived
	timeout                 time.Duration   // maximum time of process, and of isolate before it
	holdsHost               bool            // has a host slot
	stored                  bool            // of a sample: its attempt has stored objects
	releaseHost             func()          // releases the host slot; may be called more than once
	shares                  int64           // acquired shares of Worker.isolation
	canary                  bool            // it is a sample of a canary
	start                   time.Time
	log                     *zap.Logger
}

func (w *Worker) newTask(m event.Message) (*task, error) {
	req, err := decode(m)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	log := w.Log.With(zap.Int64("product_id", req.ProductID), zap.Int64("image_id", req.ImageID), zap.String("event_id", m.ID))
	if id := event.TraceID(m.Traceparent); id != "" {
		log = log.With(zap.String("trace_id", id))
	}
	return &task{
		Job: catalog.Job{
			ProductID: catalog.ProductID(req.ProductID), ImageID: catalog.ImageID(req.ImageID), JobID: m.ID,
			Traceparent: m.Traceparent, BackfillID: req.BackfillID,
		},
		original:  req.Source == event.SourceOriginal && w.Originals != nil,
		sourceURL: req.SourceURL, pipelineHash: req.PipelineHash, rules: w.Pipeline().Spec().Fetch,
		releaseHost: func() {}, start: w.Now(), log: log,
	}, nil
}

// admit acquires what an attempt needs: a host slot, a share of isolation and the specification. It waits for the slot at
// most SlotWait, so that a slow host does not delay the images of others for longer. A *media.Failure means that the job has
// to be postponed.
func (w *Worker) admit(ctx context.Context, t *task) (err error) {
	if !t.original {
		if err := w.acquireHost(ctx, t); err != nil {
			return err
		}
	}
	if err := w.isolation.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait for an isolated attempt: %w", err)
	}
	t.shares, t.start = 1, w.Now()
	if t.spec, err = w.specs.get(ctx, t.pipelineHash); err != nil {
		return fmt.Errorf("load pipeline: %w", err)
	}
	// The image may wait until the codec process has rendered two other images.
	t.timeout = t.rules.Timeout.D() + 3*t.spec.Limits.Deadline.D() + w.cfg.StoreTimeout
	failpoint.Hit(failpoint.WorkerTaken)
	return nil
}

func (w *Worker) acquireHost(ctx context.Context, t *task) error {
	wait, cancel := context.WithTimeout(ctx, w.cfg.SlotWait)
	defer cancel()
	acquire := w.Hosts.Acquire
	if t.BackfillID != 0 {
		acquire = w.acquireIdleHost
	}
	release, ok := acquire(wait, catalog.HostKey(t.sourceURL), t.rules.PerHost)
	switch {
	case ok:
		t.holdsHost, t.releaseHost = true, func() { t.holdsHost = false; release() }
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for a host slot: %w", ctx.Err())
	default:
		return media.Fail(media.HostBusy, "this host has as many downloads as its limit allows", nil)
	}
}

// idleHostPoll is the time between two tries of acquireIdleHost.
const idleHostPoll = 100 * time.Millisecond

// acquireIdleHost acquires one of half of the slots of a host, while no other job waits for one: a download in progress is
// not interrupted. It does not join those who wait, because they get their slots in order.
func (w *Worker) acquireIdleHost(ctx context.Context, host string, limit int) (release func(), ok bool) {
	for {
		if release, ok = w.Hosts.TryAcquire(host, max(1, limit/2)); ok {
			return release, true
		}
		if !backoff.Sleep(ctx, idleHostPoll) {
			return nil, false
		}
	}
}

// begin starts an attempt. begun is false if there is nothing to process or err is not nil.
func (w *Worker) begin(ctx context.Context, t *task) (begun bool, err error) {
	// The budget has one timeout for the wait for isolation, one for process, and one for repeated tries to record the
	// outcome.
	t.attempt, err = w.Catalog.Begin(ctx, t.Job, 3*t.timeout)
	w.Breakers.observe(DependencyPostgres, err)
	switch {
	case errors.Is(err, catalog.ErrDone):
		w.metrics.outcome(t, done, "")
		t.log.Debug("request was complete already")
		return false, nil
	case errors.Is(err, catalog.ErrGivenUp):
		return false, w.logOutcome(t, failed, catalog.WorkerCrash(), nil)
	case err != nil:
		return false, err
	}
	t.log = t.log.With(zap.Int("attempt", t.attempt.Number), zap.Int64("fencing_token", t.attempt.FencingToken))
	return true, nil
}

// process waits for isolation if the attempt requires it, and then processes the image. Each of the two may take the
// task's timeout.
func (w *Worker) process(ctx context.Context, t *task) error {
	if t.attempt.Isolated {
		if err := w.isolate(ctx, t); err != nil {
			return err
		}
	}
	work, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	err := w.processImage(work, t)
	if err != nil && ctx.Err() == nil && media.FailureOf(err) == nil && errors.Is(err, work.Err()) {
		return media.Fail(media.CodecUnavailable, "the time for this image ended before it was stored", err)
	}
	return err
}

// errNotIsolated means that other attempts did not end within the task's timeout.
var errNotIsolated = errors.New("wait for isolation")

// isolate waits until no other attempt runs in this process, and prevents others from starting.
func (w *Worker) isolate(ctx context.Context, t *task) error {
	w.isolation.Release(t.shares)
	t.shares = 0
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if err := w.isolation.Acquire(ctx, math.MaxInt32); err != nil {
		return fmt.Errorf("%w: %w", errNotIsolated, err)
	}
	t.shares = math.MaxInt32
	return nil
}

// processImage reads the source, renders, stores and finishes.
func (w *Worker) processImage(ctx context.Context, t *task) error {
	start := w.Now()
	src, err := w.readSource(ctx, t)
	elapsed := w.stage("fetch", start)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer src.Discard()
	failpoint.Hit(failpoint.WorkerFetched)
	size := len(src.Body)
	t.log.Info("download done", zap.Int("bytes", size), zap.Bool("original", src.original), zap.Duration("duration", elapsed))

	rendering := w.Now()
	out, err := w.render(ctx, t, src)
	elapsed = w.stage("render", rendering)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	failpoint.Hit(failpoint.WorkerRendered)
	t.log.Info("image compressed", zap.Int("renditions", len(out.Files)), zap.Int("dropped", len(out.Dropped)),
		zap.Int("bytes", out.Size()), zap.Duration("duration", elapsed))

	result := catalog.Result{
		Width: out.Width, Height: out.Height, Placeholder: out.Placeholder,
		SourceSHA256: src.SHA256, SourceBytes: int64(size), OutputHash: t.spec.OutputHash(), Dropped: out.Dropped,
	}
	storing := w.Now()
	stored, err := w.storeAll(ctx, t, &src, out, &result)
	w.stage("store", storing)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	failpoint.Hit(failpoint.WorkerStored)
	w.metrics.bytesOut.Add(float64(stored))

	recording := w.Now()
	err = w.finish(ctx, t.attempt, result)
	w.stage("finish", recording)
	if err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	w.metrics.outcome(t, ready, "")
	w.metrics.imageReady(size, out)
	t.log.Info("image ready", zap.Int64("bytes", stored), zap.Duration("duration", w.stage("total", start)))
	return nil
}

// storeAll stores the renditions, and the source beside them if it is kept, and sets both in the result. It returns the
// bytes of the renditions. It discards the source as soon as nothing needs it.
func (w *Worker) storeAll(ctx context.Context, t *task, src *Download, out media.Rendered, r *catalog.Result,
) (stored int64, err error) {
	if !w.keepsOriginal(t, src) {
		src.Discard()
		r.Renditions, stored, err = w.store(ctx, w.Objects.Put, t.attempt.Prefix, out.Files)
		return stored, err
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		r.OriginalKey, err = w.keepOriginal(ctx, t, src, out)
		src.Discard()
		return err
	})
	both.Go(func() (err error) {
		r.Renditions, stored, err = w.store(ctx, w.Objects.Put, t.attempt.Prefix, out.Files)
		return err
	})
	err = both.Wait()
	return stored, err
}

// finish records the result. While the database is unavailable it tries again, with growing pauses, until ctx ends,
// because a short outage must not discard an image that is rendered and stored. The end of ctx does not cancel a try in
// progress.
func (w *Worker) finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error {
	pause := w.cfg.OutcomeTimeout / 10
	for {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.OutcomeTimeout)
		err := w.Catalog.Finish(try, a, r)
		cancel()
		w.Breakers.observe(DependencyPostgres, err)
		if !fault.Is(err, fault.Unavailable) {
			return err
		}
		if !backoff.Sleep(ctx, pause) {
			return err
		}
		pause = min(2*pause, w.cfg.OutcomeTimeout)
	}
}

// putObject is Objects.Put or Objects.PutNoStore.
type putObject func(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error

// store stores the files below prefix, and returns their renditions and the number of bytes stored. Files that share a body
// are stored once, under one key.
func (w *Worker) store(ctx context.Context, put putObject, prefix string, files []media.EncodedFile,
) ([]catalog.Rendition, int64, error) {
	renditions := make([]catalog.Rendition, len(files))
	keys := map[*byte]string{}
	var stored int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for i, out := range files {
		if len(out.Body) == 0 {
			return nil, 0, media.Fail(media.CodecCrashed, "the codec returned an empty file for "+out.Name, g.Wait())
		}
		key, shared := keys[&out.Body[0]]
		if !shared {
			key = prefix + out.Name + "." + out.Format.Extension()
			keys[&out.Body[0]] = key
			stored += int64(len(out.Body))
			g.Go(func() error {
				err := put(ctx, key, out.Format.ContentType(), bytes.NewReader(out.Body), int64(len(out.Body)))
				w.Breakers.observe(DependencyS3, err)
				return err
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

// stage records the duration of a stage that started at start and ends now.
func (w *Worker) stage(name string, start time.Time) time.Duration {
	elapsed := w.Now().Sub(start)
	w.metrics.stages.WithLabelValues(name).Observe(elapsed.Seconds())
	return elapsed
}
