package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The errors of a part, beside those that it returns.
var (
	// ErrEnded is the error of a part that returned nil before it was stopped.
	ErrEnded = errors.New("returned before it was stopped")
	// ErrTimeout is the error of a part that did not return within the grace period.
	ErrTimeout = errors.New("was still running at the end of the grace period")
)

// Part is a long-running part of a program.
type Part struct {
	Name string // for errors

	// Run runs until ctx ends, completes its current work and returns. If it returns earlier, the program ends. After the end
	// of ctx, context.Canceled counts as nil.
	Run func(ctx context.Context) error

	// Ready waits until the next part may start, or until ctx ends. If Ready is nil the part is ready at once.
	Ready func(ctx context.Context) error
}

// Closer returns a part that only calls closeFn when it is stopped.
func Closer(name string, closeFn func() error) Part {
	return Part{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		return closeFn()
	}}
}

// Run starts the parts in order, waits until ctx or a part ends, and stops the parts in reverse order, all of them within
// grace. The contexts of the parts have the values of ctx and do not end with it. Run returns nil if all parts stopped
// without an error after the end of ctx, and else their joined errors, each with the name of its part.
func Run(ctx context.Context, grace time.Duration, parts ...Part) error {
	run, end := context.WithCancel(ctx)
	defer end()

	started := make([]*running, 0, len(parts))
	var startErr error
	for _, p := range parts {
		if run.Err() != nil {
			break
		}
		started = append(started, launch(context.WithoutCancel(ctx), p, end))
		if startErr = awaitReady(run, p); startErr != nil {
			end()
		}
	}
	<-run.Done()
	return errors.Join(startErr, stop(context.WithoutCancel(ctx), started, grace))
}

// running is a part that was started. err may be read once done is closed.
type running struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func launch(ctx context.Context, p Part, end func()) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{name: p.Name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer end()
		defer close(r.done)
		err := fault.Guard(func() error { return p.Run(ctx) })
		stopped := ctx.Err() != nil
		switch {
		case err == nil && !stopped:
			err = ErrEnded
		case stopped && errors.Is(err, context.Canceled):
			err = nil
		}
		if err != nil {
			r.err = fmt.Errorf("%s: %w", p.Name, err)
		}
	}()
	return r
}

// awaitReady returns nil when the part is ready. If run ends first it returns nil too: the error that ended run is reported.
func awaitReady(run context.Context, p Part) error {
	if p.Ready == nil {
		return nil
	}
	err := fault.Guard(func() error { return p.Ready(run) })
	if err == nil || (run.Err() != nil && errors.Is(err, run.Err())) {
		return nil
	}
	return fmt.Errorf("%s: not ready: %w", p.Name, err)
}

func stop(ctx context.Context, started []*running, grace time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	var errs []error
	for _, r := range slices.Backward(started) {
		r.cancel()
		errs = append(errs, r.wait(limit))
	}
	return errors.Join(errs...)
}

// wait returns the part's error, or ErrTimeout. It prefers the error of a part that has ended, even if limit has ended too.
func (r *running) wait(limit context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-limit.Done():
	}
	select {
	case <-r.done:
		return r.err
	default:
		return fmt.Errorf("%s: %w", r.name, ErrTimeout)
	}
}
