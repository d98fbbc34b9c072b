package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

const (
	defaultBulk = 1000
	maxBulk     = 10_000

	// maxAhead bounds what has been asked for and is not due yet. It is far below the age at which a request is given up.
	maxAhead = time.Hour
)

// Reprocessor asks anew for many pictures, behind live traffic: one request after the other becomes due, so many a second,
// and each call queues up behind those before it. It remembers nothing else: whoever asks for more pictures than a call
// takes goes on after the last one, and asking for the same ones again skips those in work.
type Reprocessor struct {
	selected  Selected
	catalog   Remaker
	pause     time.Duration // between two requests
	now       func() time.Time
	turn      chan struct{} // holds one token: the right to ask
	next      time.Time     // when the next request may be due; of whoever has the turn
	requested prometheus.Counter
	log       *zap.Logger
}

// NewReprocessor returns a Reprocessor.
func NewReprocessor(selected Selected, remaker Remaker, cfg ReprocessConfig, now func() time.Time, reg prometheus.Registerer,
	log *zap.Logger,
) *Reprocessor {
	r := &Reprocessor{
		selected: selected, catalog: remaker, pause: time.Duration(float64(time.Second) / cfg.Rate), now: now, log: log,
		turn:      make(chan struct{}, 1),
		requested: counter("vitrine_worker_reprocess_requested_total", "Pictures asked for anew in bulk."),
	}
	r.turn <- struct{}{}
	reg.MustRegister(r.requested)
	return r
}

// Reprocess looks at up to limit pictures that are selected, with ids above after in the order of their ids, and asks for
// each anew. Where few of many pictures are selected it may stop before that: only a Next of 0 says that none are left. 0
// means a limit of 1000; the most is 10000. What it has done when ctx ends or the database fails is told without an error,
// as long as it is anything: the next call goes on from there. fault.TooMany when what earlier calls asked for lasts for
// more than an hour.
func (r *Reprocessor) Reprocess(ctx context.Context, which catalog.Selection, after catalog.ImageID, limit int,
) (catalog.Bulk, error) {
	if limit == 0 {
		limit = defaultBulk
	}
	if limit < 0 || limit > maxBulk {
		return catalog.Bulk{}, fault.InvalidFields([]fault.Field{
			{Path: "limit", Code: "out_of_range", Detail: fmt.Sprintf("a number from 1 to %d", maxBulk)},
		})
	}
	select {
	case <-r.turn:
		defer func() { r.turn <- struct{}{} }()
	case <-ctx.Done():
		return catalog.Bulk{}, fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
	if r.next.Sub(r.now()) > maxAhead {
		return catalog.Bulk{}, fault.New(fault.TooMany, "reprocess_queue_full",
			"the pictures already asked for will keep the workers busy for more than an hour; ask again later")
	}
	pictures, next, err := r.selected.SelectImages(ctx, which, after, limit)
	if err != nil {
		return catalog.Bulk{}, fmt.Errorf("select pictures: %w", err)
	}
	return r.ask(ctx, pictures, which, next)
}

// ask asks for the pictures in turn. next is where to go on when all are asked for.
func (r *Reprocessor) ask(ctx context.Context, pictures []Picture, which catalog.Selection, next catalog.ImageID,
) (catalog.Bulk, error) {
	done := catalog.Bulk{Next: next}
	var last catalog.ImageID
	for _, p := range pictures {
		delay := max(0, r.next.Sub(r.now()))
		err := r.catalog.Remake(ctx, p.ProductID, p.ImageID, which, delay)
		switch {
		case err == nil:
			r.requested.Inc()
			r.next = r.now().Add(delay + r.pause)
			done.Requested++
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			done.Skipped++
		case last == 0:
			return catalog.Bulk{}, fmt.Errorf("ask for picture %d anew: %w", p.ImageID, err)
		default:
			r.log.Warn("bulk request broken off", zap.Int64("image_id", int64(p.ImageID)), zap.Error(err))
			done.Next, done.Spread = last, r.ahead()
			return done, nil
		}
		last = p.ImageID
	}
	done.Spread = r.ahead()
	return done, nil
}

// ahead is how long it takes until the last request is due.
func (r *Reprocessor) ahead() time.Duration { return max(0, r.next.Add(-r.pause).Sub(r.now())) }
