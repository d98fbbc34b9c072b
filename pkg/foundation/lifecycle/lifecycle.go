package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The ways in which a part can end wrongly, beside an error of its own.
var (
	ErrEnded = errors.New("ended without being told to")
	ErrLate  = errors.New("was still running when the grace period was over")
)

// Part is one long-running piece of a program.
type Part struct {
	Name string // for errors

	// Run works until ctx ends, then finishes what it holds and returns. Returning earlier, even nil, ends the program.
	// context.Canceled is no error once ctx has ended.
	Run func(ctx context.Context) error

	// Ready waits until Run is up: the part after this one starts then. It must return when ctx ends. Nil: ready at once.
	Ready func(ctx context.Context) error
}

// Closer returns a part that does nothing but hold something, which is closed when its turn to stop comes.
func Closer(name string, closeFn func() error) Part {
	return Part{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		return closeFn()
	}}
}

// Run starts parts in order, waits until ctx ends or a part does, and stops them in reverse order. grace is the time that
// all of them have together to stop. Contexts of parts carry ctx's values but not its end. The error joins what went
// wrong, each with the name of its part; a clean stop after ctx ended is nil.
func Run(ctx context.Context, grace time.Duration, parts ...Part) error {
	alive, end := context.WithCancel(ctx)
	defer end()

	started := make([]*running, 0, len(parts))
	var startErr error
	for _, p := range parts {
		if alive.Err() != nil {
			break
		}
		started = append(started, launch(context.WithoutCancel(ctx), p, end))
		if startErr = awaitReady(alive, p); startErr != nil {
			end()
		}
	}
	<-alive.Done()
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
		told := ctx.Err() != nil
		switch {
		case err == nil && !told:
			err = ErrEnded
		case told && errors.Is(err, context.Canceled):
			err = nil
		}
		if err != nil {
			r.err = fmt.Errorf("%s: %w", p.Name, err)
		}
	}()
	return r
}

// awaitReady returns nil when the part is ready, and also when the program ended first: then that is the news.
func awaitReady(alive context.Context, p Part) error {
	if p.Ready == nil {
		return nil
	}
	err := fault.Guard(func() error { return p.Ready(alive) })
	if err == nil || (alive.Err() != nil && errors.Is(err, alive.Err())) {
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

// wait returns the part's error, or ErrLate. A part that has ended is never late, even when limit has passed too.
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
		return fmt.Errorf("%s: %w", r.name, ErrLate)
	}
}
