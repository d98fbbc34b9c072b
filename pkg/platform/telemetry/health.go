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

// The time limits of checks.
const (
	checkTimeout = 2 * time.Second // below the probe's timeoutSeconds in the chart, 3
	maxReportAge = time.Second     // reports are reused, so that the checks run at most once a second
)

// errNoAnswer is the result of a check that did not end in time.
var errNoAnswer = fmt.Errorf("no answer within %s", checkTimeout)

// Check returns nil if one dependency of the program is available. It should end with ctx.
type Check func(ctx context.Context) error

// Status is the result of a health report.
type Status string

// The values of Status.
const (
	Ready    Status = "ready"
	NotReady Status = "not_ready"
	Draining Status = "draining" // shutting down: healthy, but should not get requests
)

// Report has the results of all checks. Errors may have addresses: it is for the admin port, not for clients.
type Report struct {
	Status Status            `json:"status"`
	Checks map[string]Result `json:"checks,omitempty"`
}

// Result is the result of one check.
type Result struct {
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`         // duration of the check
	Error   string  `json:"error,omitempty"` // "" when OK
}

// Health reports whether the program's dependencies are available.
//
// All checks run concurrently for at most two seconds, and the report is kept for one second, so that probes do not overload
// a slow database. A check that does not end with its context continues, counts as failed, and is not started again before
// it has ended. Changes of a check's result are logged.
type Health struct {
	checks   map[string]Check
	log      *zap.Logger
	now      func() time.Time
	draining atomic.Bool
	lock     chan struct{} // a mutex, with a wait that ends with a context, for the fields below
	running  map[string]*atomic.Bool
	report   Report
	at       time.Time // time of report; zero: there is none
}

// NewHealth returns a Health that is ready when all checks succeed. The keys of checks are their names.
func NewHealth(checks map[string]Check, now func() time.Time, log *zap.Logger) *Health {
	h := &Health{
		checks: maps.Clone(checks), log: log, now: now,
		lock: make(chan struct{}, 1), running: map[string]*atomic.Bool{},
	}
	for name := range checks {
		h.running[name] = new(atomic.Bool)
	}
	h.lock <- struct{}{}
	return h
}

// SetDraining makes every later report Draining, without running checks.
func (h *Health) SetDraining() { h.draining.Store(true) }

// Report returns a report that is at most a second old. If ctx ends before, the report is NotReady and has no checks.
func (h *Health) Report(ctx context.Context) Report {
	if h.draining.Load() {
		return Report{Status: Draining}
	}
	select {
	case <-h.lock:
		defer func() { h.lock <- struct{}{} }()
	case <-ctx.Done():
		return Report{Status: NotReady}
	}
	if h.at.IsZero() || h.now().Sub(h.at) >= maxReportAge {
		// All readers share the report, so the end of the first reader's context must not make its checks fail.
		next := h.runChecks(context.WithoutCancel(ctx))
		h.logChanges(h.report, next)
		h.report, h.at = next, h.now()
	}
	return h.report
}

// Ready returns nil if the program is ready, or a fault.Unavailable with the names of the failed checks as detail and
// their errors as cause.
func (h *Health) Ready(ctx context.Context) error {
	report := h.Report(ctx)
	switch {
	case report.Status == Ready:
		return nil
	case report.Status == Draining:
		return fault.New(fault.Unavailable, "not_ready", "shutting down")
	case len(report.Checks) == 0:
		return fault.Wrap(ctx.Err(), fault.Unavailable, "not_ready", "the checks did not end in time")
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

// outcome is the result of one check.
type outcome struct {
	name string
	Result
}

// runChecks runs all checks and waits for them, but not longer than checkTimeout.
func (h *Health) runChecks(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	outcomes := make(chan outcome, len(h.checks)) // for all checks, so that a late one does not block
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
			report.Checks[o.name] = o.Result
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
	start := h.now()
	var err error
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		r := Result{OK: err == nil, Seconds: h.now().Sub(start).Seconds()}
		if err != nil {
			r.Error = err.Error()
		}
		h.running[name].Store(false)
		outcomes <- outcome{name, r}
	}()
	err = check(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = errNoAnswer
	}
}

// logChanges logs the checks whose results differ between two reports. A first success is not logged.
func (h *Health) logChanges(before, after Report) {
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
