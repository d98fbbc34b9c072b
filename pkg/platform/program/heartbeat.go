package program

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
)

// HeartbeatTTL is the age at which a heartbeat no longer counts: its instance has stopped.
const HeartbeatTTL = time.Minute

const (
	heartbeatInterval = 10 * time.Second // several writes may fail within HeartbeatTTL
	heartbeatTimeout  = 5 * time.Second
	removeTimeout     = 500 * time.Millisecond // below the second that a program has beyond its grace
	maxReason         = 2000                   // bytes of an error's text
)

// Heartbeats stores the instances' reports. An error is logged and has no other effect.
type Heartbeats interface {
	// RecordHeartbeat replaces the instance's report. It ignores Silent.
	RecordHeartbeat(ctx context.Context, r pipeline.Report) error
	// RemoveHeartbeat removes the instance's report. It is no error if there is none.
	RemoveHeartbeat(ctx context.Context, role, instance string) error
}

// WatchPipeline returns the part of the program that keeps the pipeline up to date and reports it.
func (a *App) WatchPipeline(store Heartbeats) lifecycle.Part {
	log := a.Log.Named("pipeline")
	h := &heartbeat{
		store: store, state: a.Pipeline.State, now: time.Now, log: log, role: a.role, instance: a.instance,
		interval: a.heartbeatInterval, pending: make(chan struct{}, 1),
	}
	last := a.Pipeline.State()
	changed := func(s pipeline.State) {
		logReload(log, last, s)
		last = s
		h.request()
	}
	return lifecycle.Part{Name: "pipeline", Run: func(ctx context.Context) error {
		return lifecycle.Run(ctx, removeTimeout+heartbeatTimeout,
			lifecycle.Part{Name: "file", Run: func(ctx context.Context) error { return a.Pipeline.Run(ctx, changed) }},
			lifecycle.Part{Name: "heartbeat", Run: h.run},
		)
	}}
}

// logReload logs what has changed between two states: whether the file's directory is watched, and the result of a reload.
func logReload(log *zap.Logger, last, s pipeline.State) {
	switch {
	case s.WatchErr != nil && last.WatchErr == nil:
		log.Warn("pipeline directory is not watched, the file is polled", zap.Error(s.WatchErr))
	case s.WatchErr == nil && last.WatchErr != nil:
		log.Info("pipeline directory is watched")
	}
	switch {
	case s.ReloadedAt.Equal(last.ReloadedAt):
	case s.Err != nil:
		log.Error("pipeline refused, the last good one stays in force", zap.Error(s.Err), zap.Inline(revisionFields{s.Revision}))
	default:
		log.Info("pipeline in force", zap.Inline(revisionFields{s.Revision}))
	}
}

// heartbeat writes a report every interval, and at once when one is requested.
type heartbeat struct {
	store          Heartbeats
	state          func() pipeline.State
	now            func() time.Time
	log            *zap.Logger
	role, instance string
	interval       time.Duration
	pending        chan struct{}
	failing        bool
}

// request requests a report now. It does not block.
func (h *heartbeat) request() {
	select {
	case h.pending <- struct{}{}:
	default: // a report is requested already
	}
}

func (h *heartbeat) run(ctx context.Context) error {
	tick := time.NewTicker(h.interval)
	defer tick.Stop()
	for {
		h.record(ctx)
		select {
		case <-tick.C:
		case <-h.pending:
		case <-ctx.Done():
			h.remove(ctx)
			return nil
		}
	}
}

// record writes one report. It logs the first of several failures, and the next success.
func (h *heartbeat) record(ctx context.Context) {
	s := h.state()
	try, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	err := h.store.RecordHeartbeat(try, pipeline.Report{
		Role: h.role, Instance: h.instance, Revision: s.Revision.ID(), Hash: s.Revision.Hash(), Error: reason(s.Err),
		InForce: h.now().Sub(s.Since),
	})
	switch {
	case ctx.Err() != nil: // stopped meanwhile
		return
	case err != nil && !h.failing:
		h.log.Warn("heartbeat failed", zap.Error(err))
	case err == nil && h.failing:
		h.log.Info("heartbeat recovered")
	}
	h.failing = err != nil
}

func (h *heartbeat) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := h.store.RemoveHeartbeat(ctx, h.role, h.instance); err != nil {
		h.log.Info("heartbeat not removed", zap.Error(err)) // it expires after HeartbeatTTL
	}
}

// reason returns an error as one line of valid UTF-8, at most maxReason bytes: a document may have field names of any bytes.
func reason(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r < ' ' }), " ")
	if len(text) > maxReason {
		text = text[:maxReason] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
