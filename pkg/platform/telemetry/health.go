package telemetry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/fault"
)

// Check returns nil if one dependency of the program is available. It should end with ctx.
type Check func(ctx context.Context) error

// ErrNotStarted is the error of a check of a part that the program has not started yet. It is not recorded.
var ErrNotStarted = errors.New("not started yet")

// Dependency is what a program needs, with its check.
type Dependency struct {
	Name     string
	Check    Check
	Optional bool // it is only reported: the program becomes ready without it
	Shared   bool // all instances use the same one, see Health; at most one dependency is shared
}

// Peers is how the instances of a program tell each other that the shared dependency answers them. Its errors have no effect
// but a log line. Calls do not overlap.
type Peers interface {
	// Announce tells the other instances that the dependency answers this one. They believe it for HealthConfig.MarkTTL.
	Announce(ctx context.Context) error
	// Announced reports whether another instance has announced.
	Announced(ctx context.Context) (bool, error)
}

// Status is whether a program should get requests.
type Status string

// The values of Status.
const (
	Ready    Status = "ready"
	NotReady Status = "not_ready"
	Draining Status = "draining" // shutting down: healthy, but should not get requests
)

// Report has the results of the last checks. Errors may have addresses: it is for the admin port, not for clients.
type Report struct {
	Status Status            `json:"status"`
	Reason string            `json:"reason,omitempty"` // why the program is not ready; without addresses
	Checks map[string]Result `json:"checks,omitempty"`
}

// Result is the result of one check.
type Result struct {
	OK            bool    `json:"ok"`
	Optional      bool    `json:"optional,omitempty"`
	Seconds       float64 `json:"seconds"`                  // duration of the check
	FailedSeconds float64 `json:"failed_seconds,omitempty"` // since the first failure after the last success
	Error         string  `json:"error,omitempty"`          // "" when OK
}

// Health decides whether a program is ready.
//
// A program becomes ready when no dependency fails, optional ones aside. From then on a failure does not make it unready: if
// all instances lose a database, a load balancer without endpoints would also end the requests that need none, and answer
// the others worse than the program does. There is one exception: the shared dependency has failed for UnreadyAfter, and
// another instance announces that it answers there. Then this instance is cut off, and others can do its work. If the
// announcements cannot be read, it stays ready.
//
// Run checks each dependency every Interval, for two seconds at most. Reports do not wait for checks. A check that does not
// end with its context counts as failed, and is not started again before it has ended.
type Health struct {
	cfg     HealthConfig
	log     *zap.Logger
	now     func() time.Time
	metrics *healthMetrics

	mu       sync.Mutex // for the fields below
	states   []*dependencyState
	peers    Peers // nil: not known yet
	started  bool  // the program has been ready
	cutOff   bool
	draining bool
}

// dependencyState is a dependency and the result of its last check.
type dependencyState struct {
	Dependency
	checked bool
	last    Result
	since   time.Time // of the first failure since the last success
	peerOK  bool      // another instance has announced, when this one failed
}

// NewHealth returns a Health that is not ready, unless it has no dependencies. reg takes its metrics; nil is for none.
func NewHealth(cfg HealthConfig, dependencies []Dependency, now func() time.Time, reg prometheus.Registerer, log *zap.Logger,
) *Health {
	h := &Health{cfg: cfg, log: log, now: now, metrics: newHealthMetrics(reg)}
	for _, d := range dependencies {
		h.states = append(h.states, &dependencyState{Dependency: d})
	}
	h.decide(now()) // without dependencies it is ready
	return h
}

// SetPeers sets how this instance talks to others about the shared dependency. Until then a failure does not make it
// unready.
func (h *Health) SetPeers(p Peers) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers = p
}

// SetDraining makes every later report Draining.
func (h *Health) SetDraining() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.metrics.ready.Set(0)
}

// Report returns the results of the last checks.
func (h *Health) Report() Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.summary()
	r.Checks = make(map[string]Result, len(h.states))
	for _, d := range h.states {
		result := d.last
		switch {
		case !d.checked:
			result.Error = "not checked yet"
		case !result.OK:
			result.FailedSeconds = h.now().Sub(d.since).Seconds()
		}
		result.Optional = d.Optional
		r.Checks[d.Name] = result
	}
	return r
}

// Ready returns nil if the program is ready, or a fault.Unavailable whose detail is the reason. Its cause has the errors of
// the failed checks.
func (h *Health) Ready(context.Context) error {
	r := h.Report()
	if r.Status == Ready {
		return nil
	}
	var causes []error
	for _, name := range slices.Sorted(maps.Keys(r.Checks)) {
		if c := r.Checks[name]; !c.OK && !c.Optional {
			causes = append(causes, errors.New(name+": "+c.Error))
		}
	}
	return fault.Wrap(errors.Join(causes...), fault.Unavailable, "not_ready", r.Reason)
}

// summary returns a report without checks. The caller holds mu.
func (h *Health) summary() Report {
	switch {
	case h.draining:
		return Report{Status: Draining, Reason: "shutting down"}
	case !h.started:
		return Report{Status: NotReady, Reason: "not available: " + strings.Join(h.missing(), ", ")}
	case h.cutOff:
		return Report{Status: NotReady, Reason: "cut off: another instance reaches what this one does not"}
	default:
		return Report{Status: Ready}
	}
}

// missing returns the names of the dependencies that the program needs to become ready and that do not answer, sorted.
func (h *Health) missing() []string {
	var names []string
	for _, d := range h.states {
		if !d.Optional && !d.last.OK {
			names = append(names, d.Name)
		}
	}
	slices.Sort(names)
	return names
}
