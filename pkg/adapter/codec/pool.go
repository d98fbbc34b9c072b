package codec

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	process "vitrine.io/pkg/foundation/process"
)

// Pool runs the codec processes of one worker. It implements worker.Codec and may be used concurrently.
type Pool struct {
	cfg     Config
	path    string
	args    []string
	env     []string
	log     *zap.Logger
	metrics *metrics
	now     func() time.Time
	busy    *busyTime
	poison  *poisonCache
	thread  *process.ForkThread // starts every child

	slots      chan *slot     // idle slots
	quit       chan struct{}  // closed by Close
	goroutines sync.WaitGroup // all goroutines of all children

	mu        sync.Mutex
	alive     map[*child]struct{}
	killed    bool // no further child may start
	closed    bool
	failures  int       // consecutive starts that failed
	nextStart time.Time // the earliest time of the next start
}

// slot holds one child. The goroutine that received it from Pool.slots owns it and its child.
type slot struct {
	name  string
	child *child // nil: not started yet, or lost
}

// Option configures a pool.
type Option func(*Pool)

// WithEnv adds variables ("NAME=value") to the children's environment, which otherwise holds only what libvips needs.
func WithEnv(variables ...string) Option {
	return func(p *Pool) { p.env = append(p.env, variables...) }
}

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option { return func(p *Pool) { p.now = now } }

// New returns a pool of codecs. Each codec is started for its first image or by Ready. It returns an error if the codec
// program or the configured allocator is not found.
func New(cfg Config, reg prometheus.Registerer, log *zap.Logger, options ...Option) (*Pool, error) {
	path, err := locate(cfg.Path)
	if err != nil {
		return nil, err
	}
	preload, err := allocator(cfg.Preload)
	if err != nil {
		return nil, err
	}
	if cfg.Children == 0 {
		cfg.Children = runtime.GOMAXPROCS(0) // Go considers the CPU limit of a container
	}
	p := &Pool{
		cfg: cfg, path: path, env: environment(preload), log: log, now: time.Now,
		slots: make(chan *slot, cfg.Children), quit: make(chan struct{}), alive: map[*child]struct{}{},
		thread: process.NewForkThread(),
	}
	if cfg.Sandbox == "off" { // on is the codec's default
		p.args = append(p.args, "--sandbox=off")
		log.Warn("codecs run without a sandbox")
	}
	if cfg.AddressSpace > 0 {
		p.args = append(p.args, "--address-space="+strconv.FormatInt(cfg.AddressSpace, 10))
	}
	for _, option := range options {
		option(p)
	}
	p.busy = newBusyTime(cfg.Children, p.now)
	p.poison = &poisonCache{now: p.now, entries: map[poisonKey]time.Time{}}
	p.metrics = newMetrics(reg, p.busy)
	for i := range cfg.Children {
		p.slots <- &slot{name: strconv.Itoa(i)}
	}
	p.metrics.slots.Set(float64(cfg.Children))
	return p, nil
}

// Render waits for a free child, then for its answer, at most spec.Limits.Deadline. Its errors are *media.Failure, or
// ctx's error.
func (p *Pool) Render(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return p.render(ctx, source, spec, false)
}

// RenderSafe is Render for a source on which a codec was lost before. It starts a new child in safe mode, without SIMD
// instructions. That is slower, but liborc, which compiles SIMD code at run time, has rare crashes.
func (p *Pool) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return p.render(ctx, source, spec, true)
}

// render sends one image to a child. The child is in safe mode if the caller requests it, or if this pool recently lost a
// codec on the same content.
func (p *Pool) render(ctx context.Context, source []byte, spec pipeline.Spec, safeMode bool) (media.Rendered, error) {
	start := p.now()
	s, err := p.acquire(ctx)
	if err != nil {
		return media.Rendered{}, err
	}
	defer p.release(s)
	p.metrics.wait.Observe(p.now().Sub(start).Seconds())
	// The cache is read after the wait, because a codec may have been lost on the same content during it.
	if err := p.ensureChild(ctx, s, safeMode || p.poison.contains(source, spec)); err != nil {
		return media.Rendered{}, err
	}
	start = p.now()
	rendered, reusable, err := s.child.render(ctx, source, spec)
	p.metrics.render.WithLabelValues(outcome(err)).Observe(p.now().Sub(start).Seconds())
	p.recycle(s, reusable, err)
	if media.FailureOf(err).CodecLost() {
		p.poison.add(source, spec)
	}
	return rendered, err
}

// Compare waits for a free child, and then at most spec.Limits.Deadline for the scores of files that were made from the
// source. Errors are those of Render. A child that is lost in a comparison does not make the source poison content, because
// a file may be the cause.
func (p *Pool) Compare(ctx context.Context, source []byte, spec pipeline.Spec, files []media.Comparison,
) ([]media.Score, error) {
	s, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer p.release(s)
	if err := p.ensureChild(ctx, s, p.poison.contains(source, spec)); err != nil {
		return nil, err
	}
	scores, reusable, err := s.child.compare(ctx, source, spec, files)
	p.recycle(s, reusable, err)
	return scores, err
}

// Ready returns nil if the pool can render. That is the case if all slots are busy, an idle child is alive, or Ready can
// start a child. Its error is a *media.Failure or ctx's error.
func (p *Pool) Ready(ctx context.Context) error {
	select {
	case s := <-p.slots:
		defer func() { p.slots <- s }()
		if p.closing() {
			return unavailable(errClosed, 0)
		}
		return p.ensureChild(ctx, s, false)
	default:
		if p.closing() {
			return unavailable(errClosed, 0)
		}
		return nil
	}
}

func (p *Pool) acquire(ctx context.Context) (*slot, error) {
	select {
	case s := <-p.slots:
		if p.closing() { // a slot that Close has returned must not be used
			p.slots <- s
			return nil, unavailable(errClosed, 0)
		}
		p.metrics.busy.Inc()
		p.busy.add(1)
		return s, nil
	case <-p.quit:
		return nil, unavailable(errClosed, 0)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *Pool) closing() bool {
	select {
	case <-p.quit:
		return true
	default:
		return false
	}
}

func (p *Pool) release(s *slot) {
	p.metrics.busy.Dec()
	p.busy.add(-1)
	p.slots <- s
}

// ensureChild starts a child if the slot has none that is alive; in safe mode it always starts a new one. The slot's old
// child ends only when the new one has started, so that it still serves other calls if no child can be started.
func (p *Pool) ensureChild(ctx context.Context, s *slot, safeMode bool) error {
	if s.child != nil && !s.child.alive() {
		p.log.Warn("codec ended while idle", zap.Int("pid", s.child.pid), zap.Stringer("state", s.child.state))
		p.drop(s, reasonIdle)
	}
	if s.child != nil && !safeMode {
		return nil
	}
	if wait := p.untilNextStart(); wait > 0 {
		return unavailable(errors.New("the previous start failed"), wait)
	}
	c, err := p.spawn(ctx, safeMode)
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	wait := p.recordStart(err)
	if err != nil {
		return unavailable(err, wait)
	}
	if safeMode {
		p.metrics.safeModeRenders.Inc()
	}
	if s.child != nil {
		p.drop(s, reasonSafeMode)
	}
	s.child = c
	return nil
}

// untilNextStart returns the time until the next start is allowed; 0 or less means now.
func (p *Pool) untilNextStart() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nextStart.Sub(p.now())
}

// recordStart records the result of a start and returns the pause before the next one.
func (p *Pool) recordStart(err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.failures, p.nextStart = 0, time.Time{}
		return 0
	}
	p.metrics.startFailures.Inc()
	wait := backoff.Double(p.failures, p.cfg.StartBackoff, maxStartBackoff)
	p.failures++
	p.nextStart = p.now().Add(wait)
	return wait
}

// recycle drops the slot's child after an image if it must not, or should not, render another one.
func (p *Pool) recycle(s *slot, reusable bool, err error) {
	rss := s.child.rss()
	p.metrics.rss.WithLabelValues(s.name).Set(float64(rss))
	failure := media.FailureOf(err)
	switch {
	case !reusable && failure == nil:
		p.drop(s, reasonCancelled)
	case !reusable && failure.Code == media.CodecTimeout:
		p.drop(s, reasonTimeout)
	case !reusable, failure != nil && failure.Code == media.CodecCrashed: // after a failed allocation the state of C is unknown
		p.drop(s, reasonCrashed)
	case s.child.safeMode: // safe mode is slow
		p.drop(s, reasonSafeMode)
	case s.child.seq >= p.cfg.RecycleAfter:
		p.drop(s, reasonImages)
	case rss > p.cfg.MaxRSS:
		p.log.Info("codec replaced: resident memory too large", zap.Int("pid", s.child.pid), zap.Int64("rss_bytes", rss))
		p.drop(s, reasonRSS)
	}
}

// drop removes the child of a slot. The child ends in the background, so that the next child can start at once.
func (p *Pool) drop(s *slot, reason string) {
	p.metrics.restarts.WithLabelValues(reason).Inc()
	p.retire(s)
}

// retire removes the child of a slot and does not wait for its end.
func (p *Pool) retire(s *slot) {
	c := s.child
	s.child = nil
	p.goroutines.Go(func() { c.retire(p.cfg.ShutdownGrace) })
}

// launch starts the process and registers it, unless the pool has been killed.
func (p *Pool) launch(cmd *exec.Cmd, c *child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		cmd.Err = errClosed // cmd.Start then only closes the pipes
	}
	if err := p.thread.Start(cmd); err != nil {
		return err
	}
	c.proc, c.pid = cmd.Process, cmd.Process.Pid
	p.alive[c] = struct{}{}
	p.metrics.children.Set(float64(len(p.alive)))
	return nil
}

func (p *Pool) remove(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.alive, c)
	p.metrics.children.Set(float64(len(p.alive)))
}

// Close ends the pool: it accepts no further image and waits for those that are being rendered until ctx ends, then kills
// their children. It returns when every child is reaped, with ctx's error if one was killed during a render. Later calls
// also wait.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closed
	if first {
		p.closed = true
		close(p.quit)
	}
	p.mu.Unlock()

	var err error
	idle := make([]*slot, 0, p.cfg.Children)
	for done := ctx.Done(); len(idle) < p.cfg.Children; {
		select {
		case s := <-p.slots:
			idle = append(idle, s)
		case <-done:
			err = fmt.Errorf("close codecs: %d killed during a render: %w", p.cfg.Children-len(idle), ctx.Err())
			p.killAll()
			done = nil
		}
	}
	for _, s := range idle {
		if s.child != nil {
			p.retire(s)
		}
		p.slots <- s
	}
	p.goroutines.Wait()
	if first {
		p.thread.Close()
	}
	return err
}

func (p *Pool) killAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	for c := range p.alive {
		c.kill()
	}
}

// outcome returns the value of a metric's label: "ok", a failure's code, or "cancelled".
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if failure := media.FailureOf(err); failure != nil {
		return string(failure.Code)
	}
	return "cancelled"
}
