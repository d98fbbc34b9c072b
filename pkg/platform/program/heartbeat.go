package program

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
)

// Silence is how old a heartbeat may be before its instance counts as gone.
const Silence = time.Minute

const (
	beatEvery    = 10 * time.Second // several may fail before Silence
	beatTimeout  = 5 * time.Second
	leaveTimeout = 500 * time.Millisecond // of the second that a program has beyond its grace
	maxReason    = 2000                   // bytes of an error's text
)

// Heartbeats keeps the instances' reports. Its errors cost the report and nothing else.
type Heartbeats interface {
	// RecordHeartbeat writes the report over the instance's last one. Its Silent is not read.
	RecordHeartbeat(ctx context.Context, r pipeline.Report) error
	// RemoveHeartbeat removes the instance's report. None there is no error.
	RemoveHeartbeat(ctx context.Context, role, instance string) error
}

// Follow is the part that keeps the pipeline up to date and tells of it.
func (k *App) Follow(roll Heartbeats) lifecycle.Part {
	log := k.Log.Named("pipeline")
	h := &heartbeat{
		roll: roll, state: k.Pipeline.State, now: time.Now, log: log, role: k.role, instance: k.instance,
		every: k.every, soon: make(chan struct{}, 1),
	}
	last := k.Pipeline.State()
	told := func(s pipeline.State) {
		logReload(log, last, s)
		last = s
		h.hurry()
	}
	return lifecycle.Part{Name: "pipeline", Run: func(ctx context.Context) error {
		return lifecycle.Run(ctx, leaveTimeout+beatTimeout,
			lifecycle.Part{Name: "file", Run: func(ctx context.Context) error { return k.Pipeline.Run(ctx, told) }},
			lifecycle.Part{Name: "heartbeat", Run: h.run},
		)
	}}
}

// logReload logs what has changed: whether the file's directory is watched, and what a reload has come to.
func logReload(log *zap.Logger, last, s pipeline.State) {
	switch {
	case s.Blind != nil && last.Blind == nil:
		log.Warn("pipeline's directory is not watched, its file is polled", zap.Error(s.Blind))
	case s.Blind == nil && last.Blind != nil:
		log.Info("pipeline's directory is watched again")
	}
	switch {
	case s.Tried.Equal(last.Tried):
	case s.Err != nil:
		log.Error("pipeline refused, the last good one stays in force", zap.Error(s.Err), zap.Inline(names{s.Revision}))
	default:
		log.Info("pipeline in force", zap.Inline(names{s.Revision}))
	}
}

// heartbeat reports every so often, and at once when there is news.
type heartbeat struct {
	roll           Heartbeats
	state          func() pipeline.State
	now            func() time.Time
	log            *zap.Logger
	role, instance string
	every          time.Duration
	soon           chan struct{}
	failing        bool
}

// hurry asks for a beat now. It never waits.
func (h *heartbeat) hurry() {
	select {
	case h.soon <- struct{}{}:
	default: // one is asked for already
	}
}

func (h *heartbeat) run(ctx context.Context) error {
	tick := time.NewTicker(h.every)
	defer tick.Stop()
	for {
		h.beat(ctx)
		select {
		case <-tick.C:
		case <-h.soon:
		case <-ctx.Done():
			h.leave(ctx)
			return nil
		}
	}
}

// beat writes one report. What fails is told once, until it succeeds again.
func (h *heartbeat) beat(ctx context.Context) {
	s := h.state()
	try, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	err := h.roll.RecordHeartbeat(try, pipeline.Report{
		Role: h.role, Instance: h.instance, Revision: s.Revision.ID(), Error: reason(s.Err), InForce: h.now().Sub(s.Since),
	})
	switch {
	case ctx.Err() != nil: // told to stop meanwhile
		return
	case err != nil && !h.failing:
		h.log.Warn("no heartbeat", zap.Error(err))
	case err == nil && h.failing:
		h.log.Info("heartbeat again")
	}
	h.failing = err != nil
}

func (h *heartbeat) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := h.roll.RemoveHeartbeat(ctx, h.role, h.instance); err != nil {
		h.log.Info("heartbeat left behind", zap.Error(err)) // it is ignored soon
	}
}

// reason is an error as a short line of text that a database takes: a document may name a field with any bytes.
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
