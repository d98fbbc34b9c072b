package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/fault"
)

// The times of checks. A program that starts is checked more often, so that it is ready soon.
const (
	checkTimeout  = 2 * time.Second
	startInterval = 200 * time.Millisecond
	peersTimeout  = time.Second
)

// errNoAnswer is the result of a check that did not end in time.
var errNoAnswer = fmt.Errorf("no answer within %s", checkTimeout)

// Run checks the dependencies until ctx ends. It returns nil. A check that ignores the end of its context may outlast it.
func (h *Health) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, d := range h.states {
		all.Go(func() {
			for alive := true; alive; alive = backoff.Sleep(ctx, h.interval()) {
				h.check(ctx, d)
			}
		})
	}
	all.Wait()
	return nil
}

func (h *Health) interval() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		return min(startInterval, h.cfg.Interval)
	}
	return h.cfg.Interval
}

// check runs one check, records its result, and returns when the check has ended or ctx has.
func (h *Health) check(ctx context.Context, d *dependencyState) {
	start := h.now()
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fault.Guard(func() error { return d.Check(limited) }) }()
	var err error
	ended := true
	select {
	case err = <-done:
	case <-limited.Done():
		err, ended = errNoAnswer, false
	}
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil {
		err = errNoAnswer
	}
	h.record(d, start, err, h.askPeers(ctx, d, err))
	if ended {
		return
	}
	select {
	case late := <-done:
		h.log.Debug("late end of a check", zap.String("check", d.Name), zap.Error(late))
	case <-ctx.Done():
	}
}

// askPeers announces a success of the shared dependency, or asks whether another instance has announced one.
func (h *Health) askPeers(ctx context.Context, d *dependencyState, result error) (announced bool) {
	h.mu.Lock()
	peers := h.peers
	h.mu.Unlock()
	if !d.Shared || peers == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	var err error
	if result == nil {
		err = peers.Announce(ctx)
	} else {
		announced, err = peers.Announced(ctx)
	}
	if err != nil {
		h.log.Debug("other instances not asked", zap.Error(err))
	}
	return announced && err == nil
}

// record stores the result of a check that began at start, and logs what it changes.
func (h *Health) record(d *dependencyState, start time.Time, err error, peerOK bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining || errors.Is(err, ErrNotStarted) { // while it drains, dependencies are closed
		return
	}
	now, before, known := h.now(), d.last, d.checked
	d.checked, d.peerOK = true, peerOK
	d.last = Result{OK: err == nil, Seconds: now.Sub(start).Seconds()}
	if err != nil {
		d.last.Error = err.Error()
		if before.OK || !known {
			d.since = start
		}
	}
	h.metrics.up.WithLabelValues(d.Name).Set(number(err == nil))
	switch {
	case err != nil && (before.OK || !known):
		h.log.Warn("check failed", zap.String("check", d.Name), zap.Error(err))
	case err == nil && known && !before.OK:
		h.log.Info("check recovered", zap.String("check", d.Name), zap.Duration("failed", now.Sub(d.since)))
	}
	h.decide(now)
}

// decide updates whether the program has been ready and whether it is cut off. The caller holds mu.
func (h *Health) decide(now time.Time) {
	if !h.started && len(h.missing()) == 0 {
		h.started = true
		h.log.Info("ready")
	}
	cutOff := false
	for _, d := range h.states {
		cutOff = cutOff || d.Shared && d.checked && !d.last.OK && d.peerOK && now.Sub(d.since) >= h.cfg.UnreadyAfter
	}
	if h.started && cutOff != h.cutOff {
		if cutOff {
			h.log.Warn("not ready: this instance is cut off")
		} else {
			h.log.Info("ready: this instance is no longer cut off, or no other instance is better off")
		}
	}
	h.cutOff = cutOff
	h.metrics.ready.Set(number(h.summary().Status == Ready))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
