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

// Pool is the codec processes of one worker. It implements worker.Codec, and may be used concurrently.
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

	slots      chan *slot     // those without a picture
	quit       chan struct{}  // closed by Close
	goroutines sync.WaitGroup // every goroutine of every child

	mu        sync.Mutex
	alive     map[*child]struct{}
	killed    bool // no child may start any more
	closed    bool
	failures  int       // starts that failed in a row
	nextStart time.Time // the next start is not before this
}

// slot is a place for one child. Whoever took it out of Pool.slots owns it and its child.
type slot struct {
	name  string
	child *child // nil: none was started yet, or the last one was lost
}

// Option changes what a pool takes from its surroundings.
type Option func(*Pool)

// WithEnv adds variables ("NAME=value") to the children's environment, which otherwise holds only what libvips needs.
func WithEnv(variables ...string) Option {
	return func(p *Pool) { p.env = append(p.env, variables...) }
}

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option { return func(p *Pool) { p.now = now } }

// New returns a pool of codecs. It starts none: each is started for its first picture, or by Ready. It fails when the
// codec program or the configured allocator is not there.
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
		cfg.Children = runtime.GOMAXPROCS(0) // Go counts a container's CPU limit
	}
	p := &Pool{
		cfg: cfg, path: path, env: environment(preload), log: log, now: time.Now,
		slots: make(chan *slot, cfg.Children), quit: make(chan struct{}), alive: map[*child]struct{}{},
		thread: process.NewForkThread(),
	}
	if cfg.Sandbox == "off" { // on is what a codec does of itself
		p.args = append(p.args, "--sandbox=off")
		log.Warn("codecs run without their sandbox")
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

// RenderSafe is Render for a source that has cost a codec before. It gets a child of its own in safe mode, without the
// vector unit: that is slower, but liborc, which compiles for it at run time, is known for rare crashes.
func (p *Pool) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return p.render(ctx, source, spec, true)
}

// render sends one image to a child: to one in safe mode if the caller says so, or if the same content has cost this pool a
// codec lately.
func (p *Pool) render(ctx context.Context, source []byte, spec pipeline.Spec, safeMode bool) (media.Rendered, error) {
	began := p.now()
	s, err := p.acquire(ctx)
	if err != nil {
		return media.Rendered{}, err
	}
	defer p.release(s)
	p.metrics.wait.Observe(p.now().Sub(began).Seconds())
	// The cache is read only now: the same content may have cost a codec while this call waited.
	if err := p.ensureChild(ctx, s, safeMode || p.poison.contains(source, spec)); err != nil {
		return media.Rendered{}, err
	}
	began = p.now()
	rendered, fit, err := s.child.render(ctx, source, spec)
	p.metrics.render.WithLabelValues(outcome(err)).Observe(p.now().Sub(began).Seconds())
	p.recycle(s, fit, err)
	if media.FailureOf(err).CodecLost() {
		p.poison.add(source, spec)
	}
	return rendered, err
}

// Ready returns nil if a picture could be worked on now: every child has one, or one is idle, or one could be started.
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
		if p.closing() { // a slot that Close has given back is for nobody
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

// ensureChild makes sure that a slot has a living child; in safe mode, a new one. The slot's own child ends only when the
// new one has started: if none can be started, it still serves other calls.
func (p *Pool) ensureChild(ctx context.Context, s *slot, safeMode bool) error {
	if s.child != nil && !s.child.alive() {
		p.log.Warn("codec ended while it was idle", zap.Int("pid", s.child.pid), zap.Stringer("state", s.child.state))
		p.drop(s, reasonIdle)
	}
	if s.child != nil && !safeMode {
		return nil
	}
	if wait := p.untilNextStart(); wait > 0 {
		return unavailable(errors.New("the last one could not be started either"), wait)
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

// pause returns how long starting is to be left alone.
func (p *Pool) untilNextStart() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nextStart.Sub(p.now())
}

// started notes how a start went, and returns how long starting is to be left alone after it.
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

// recycle drops the slot's child after an image if it must not, or need not, be used again.
func (p *Pool) recycle(s *slot, fit bool, err error) {
	rss := s.child.rss()
	p.metrics.rss.WithLabelValues(s.name).Set(float64(rss))
	failure := media.FailureOf(err)
	switch {
	case !fit && failure == nil:
		p.drop(s, reasonCancelled)
	case !fit && failure.Code == media.CodecTimeout:
		p.drop(s, reasonTimeout)
	case !fit, failure != nil && failure.Code == media.CodecCrashed: // a C library short of memory has no state to trust
		p.drop(s, reasonCrashed)
	case s.child.safeMode: // it is slow
		p.drop(s, reasonSafeMode)
	case s.child.seq >= p.cfg.RecycleAfter:
		p.drop(s, reasonImages)
	case rss > p.cfg.MaxRSS:
		p.log.Info("codec replaced for its memory", zap.Int("pid", s.child.pid), zap.Int64("rss_bytes", rss))
		p.drop(s, reasonRSS)
	}
}

// drop empties a slot. The child ends in the background: the next one need not wait for it.
func (p *Pool) drop(s *slot, reason string) {
	p.metrics.restarts.WithLabelValues(reason).Inc()
	c := s.child
	s.child = nil
	p.goroutines.Go(func() { c.retire(p.cfg.ShutdownGrace) })
}

// launch starts the process and counts it, unless the pool has been killed meanwhile.
func (p *Pool) launch(cmd *exec.Cmd, c *child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return errClosed
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

// Close ends the pool: no new picture is taken, those in hand are waited for until ctx ends, then their children are
// killed. It returns when every child is reaped, with ctx's error if one was killed at work. Closing again waits too.
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
	for len(idle) < p.cfg.Children {
		done := ctx.Done()
		if err != nil {
			done = nil
		}
		select {
		case s := <-p.slots:
			idle = append(idle, s)
		case <-done:
			err = fmt.Errorf("close codecs: %d killed at work: %w", p.cfg.Children-len(idle), ctx.Err())
			p.killAll()
		}
	}
	for _, s := range idle {
		if s.child != nil {
			c := s.child
			s.child = nil
			p.goroutines.Go(func() { c.retire(p.cfg.ShutdownGrace) })
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

// outcome is a metric's label: "ok", a failure's code, or "cancelled".
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if failure := media.FailureOf(err); failure != nil {
		return string(failure.Code)
	}
	return "cancelled"
}
