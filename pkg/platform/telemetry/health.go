package telemetry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/fault"
)

// How checks are run.
const (
	checkTimeout = 2 * time.Second // below the kubelet's patience, which the charts set to 3 s
	reportAge    = time.Second     // how long an answer is given again: probes of any number cost one round a second
)

// errNoAnswer is the result of a check that took too long.
var errNoAnswer = fmt.Errorf("no answer within %s", checkTimeout)

// Check asks for one thing that the program needs. It should end with ctx.
type Check func(ctx context.Context) error

// Status is a health report's verdict.
type Status string

// The verdicts.
const (
	Ready    Status = "ready"
	NotReady Status = "not_ready"
	Draining Status = "draining" // on its way out: nothing is wrong, and nothing more should be sent here
)

// Report is what the checks said. Errors may name addresses: it is for the admin port, not for clients.
type Report struct {
	Status Status            `json:"status"`
	Checks map[string]Result `json:"checks,omitempty"`
}

// Result is what one check said.
type Result struct {
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`         // how long it took
	Error   string  `json:"error,omitempty"` // "" when OK
}

// Health tells whether the program can do its work.
//
// All checks run at once, each has two seconds, and the answer is kept for one second, so that no number of probes can
// wear down a database that is already slow. A check that does not end with its context is left running, counts as
// failed, and is not started again before it has ended. A check's change from good to bad and back is logged, once.
type Health struct {
	checks   map[string]Check
	log      *zap.Logger
	now      func() time.Time
	draining atomic.Bool
	turn     chan struct{} // holds one token: whoever has it may touch what follows
	running  map[string]*atomic.Bool
	report   Report
	at       time.Time // of report; zero: there is none
}

// NewHealth returns a Health that is ready when every one of checks is, by name.
func NewHealth(checks map[string]Check, now func() time.Time, log *zap.Logger) *Health {
	h := &Health{
		checks: maps.Clone(checks), log: log, now: now,
		turn: make(chan struct{}, 1), running: map[string]*atomic.Bool{},
	}
	for name := range checks {
		h.running[name] = new(atomic.Bool)
	}
	h.turn <- struct{}{}
	return h
}

// SetDraining makes every answer Draining from now on, without asking anything.
func (h *Health) SetDraining() { h.draining.Store(true) }

// Report returns what the checks say, at most a second old. When ctx ends before, it is NotReady and empty.
func (h *Health) Report(ctx context.Context) Report {
	if h.draining.Load() {
		return Report{Status: Draining}
	}
	select {
	case <-h.turn:
		defer func() { h.turn <- struct{}{} }()
	case <-ctx.Done():
		return Report{Status: NotReady}
	}
	if h.at.IsZero() || h.now().Sub(h.at) >= reportAge {
		// Everyone gets this report, so it must not fail because its first reader lost patience.
		next := h.ask(context.WithoutCancel(ctx))
		h.tell(h.report, next)
		h.report, h.at = next, h.now()
	}
	return h.report
}

// Ready returns nil when the program can do its work, and else a fault.Unavailable whose detail names what it waits for,
// and whose cause says why.
func (h *Health) Ready(ctx context.Context) error {
	report := h.Report(ctx)
	switch {
	case report.Status == Ready:
		return nil
	case report.Status == Draining:
		return fault.New(fault.Unavailable, "not_ready", "shutting down")
	case len(report.Checks) == 0:
		return fault.Wrap(ctx.Err(), fault.Unavailable, "not_ready", "the checks took too long")
	}
	var names []string
	var causes []error
	for _, name := range slices.Sorted(maps.Keys(report.Checks)) {
		if r := report.Checks[name]; !r.OK {
			names = append(names, name)
			causes = append(causes, fmt.Errorf("%s: %s", name, r.Error))
		}
	}
	return fault.Wrap(errors.Join(causes...), fault.Unavailable, "not_ready", "not available: "+strings.Join(names, ", "))
}

// outcome is the end of one check.
type outcome struct {
	name  string
	err   error
	spent time.Duration
}

// ask runs all checks and waits for them, but not longer than checkTimeout.
func (h *Health) ask(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	outcomes := make(chan outcome, len(h.checks)) // room for all: a late one blocks nobody
	report := Report{Status: Ready, Checks: make(map[string]Result, len(h.checks))}
	waiting := 0
	for name, check := range h.checks {
		report.Checks[name] = Result{Seconds: checkTimeout.Seconds(), Error: errNoAnswer.Error()}
		if !h.running[name].CompareAndSwap(false, true) {
			continue
		}
		waiting++
		go h.run(ctx, name, check, outcomes)
	}
	for done := false; waiting > 0 && !done; {
		select {
		case o := <-outcomes:
			waiting--
			report.Checks[o.name] = resultOf(o)
		case <-ctx.Done():
			done = true
		}
	}
	for _, r := range report.Checks {
		if !r.OK {
			report.Status = NotReady
		}
	}
	return report
}

func (h *Health) run(ctx context.Context, name string, check Check, outcomes chan<- outcome) {
	began := h.now()
	o := outcome{name: name}
	defer func() {
		if p := recover(); p != nil {
			o.err = fmt.Errorf("panic: %v", p)
		}
		o.spent = h.now().Sub(began)
		h.running[name].Store(false)
		outcomes <- o
	}()
	o.err = check(ctx)
	if errors.Is(o.err, context.DeadlineExceeded) && ctx.Err() != nil {
		o.err = errNoAnswer
	}
}

func resultOf(o outcome) Result {
	r := Result{OK: o.err == nil, Seconds: o.spent.Seconds()}
	if o.err != nil {
		r.Error = o.err.Error()
	}
	return r
}

// tell logs what changed between two reports. What is good from the start is no news.
func (h *Health) tell(before, after Report) {
	for _, name := range slices.Sorted(maps.Keys(after.Checks)) {
		was, known := before.Checks[name]
		is := after.Checks[name]
		switch {
		case !is.OK && (was.OK || !known):
			h.log.Warn("check failed", zap.String("check", name), zap.String("error", is.Error))
		case is.OK && known && !was.OK:
			h.log.Info("check recovered", zap.String("check", name))
		}
	}
}
