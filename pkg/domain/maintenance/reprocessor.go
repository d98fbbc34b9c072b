package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

const (
	defaultBulk = 1000
	maxBulk     = 10_000

	// maxAhead bounds how far ahead requests are scheduled. It is far below the age at which a request is given up.
	maxAhead = time.Hour
)

// Reprocessor requests many images again, behind live traffic: the requests become due one after the other, at a fixed rate,
// and each call queues behind those before it. It keeps no other state: to process more images than one call takes, call it
// again with the last Next. Requesting the same images again skips those in work.
type Reprocessor struct {
	images    ImageFinder
	catalog   ImageReprocessor
	pause     time.Duration // between two requests
	now       func() time.Time
	turn      *semaphore.Weighted // held while requesting
	next      time.Time           // when the next request may be due; owned by the holder of turn
	requested prometheus.Counter
	log       *zap.Logger
}

// NewReprocessor returns a Reprocessor.
func NewReprocessor(images ImageFinder, requester ImageReprocessor, cfg ReprocessorConfig, now func() time.Time,
	reg prometheus.Registerer, log *zap.Logger,
) *Reprocessor {
	r := &Reprocessor{
		images: images, catalog: requester, pause: time.Duration(float64(time.Second) / cfg.Rate), now: now, log: log,
		turn:      semaphore.NewWeighted(1),
		requested: counter(reg, "vitrine_maintenance_reprocessor_requested_total", "Images requested again in bulk."),
	}
	return r
}

// Reprocess requests up to limit matching images again, with ids above after, in the order of their ids. Where few images
// match it may stop earlier: only a Next of 0 means that none are left. A limit of 0 means 1000; the maximum is 10000. If
// ctx ends or the database fails after the first request, it returns what was done without an error, and the next call
// continues there. fault.TooMany if what earlier calls requested lasts for more than an hour.
func (r *Reprocessor) Reprocess(ctx context.Context, which catalog.Filter, after catalog.ImageID, limit int,
) (catalog.BulkResult, error) {
	if limit == 0 {
		limit = defaultBulk
	}
	if limit < 0 || limit > maxBulk {
		return catalog.BulkResult{}, fault.InvalidFields([]fault.Field{
			{Path: "limit", Code: "out_of_range", Detail: fmt.Sprintf("a number from 1 to %d", maxBulk)},
		})
	}
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return catalog.BulkResult{}, fmt.Errorf("wait for a turn: %w", err)
	}
	defer r.turn.Release(1)
	if r.next.Sub(r.now()) > maxAhead {
		return catalog.BulkResult{}, fault.New(fault.TooMany, "reprocess_queue_full",
			"the pictures already asked for will keep the workers busy for more than an hour; ask again later")
	}
	images, next, err := r.images.SelectImages(ctx, which, after, limit)
	if err != nil {
		return catalog.BulkResult{}, fmt.Errorf("select images: %w", err)
	}
	return r.request(ctx, images, which, next)
}

// request requests the images in turn. next is where the next call continues once all are requested.
func (r *Reprocessor) request(ctx context.Context, images []ImageRef, which catalog.Filter, next catalog.ImageID,
) (catalog.BulkResult, error) {
	done := catalog.BulkResult{Next: next}
	var last catalog.ImageID
	for _, p := range images {
		delay := max(0, r.next.Sub(r.now()))
		err := r.catalog.ReprocessIf(ctx, p.ProductID, p.ImageID, which, delay)
		switch {
		case err == nil:
			r.requested.Inc()
			r.next = r.now().Add(delay + r.pause)
			done.Requested++
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			done.Skipped++
		case last == 0:
			return catalog.BulkResult{}, fmt.Errorf("request image %d again: %w", p.ImageID, err)
		default:
			r.log.Warn("bulk request interrupted", zap.Int64("image_id", int64(p.ImageID)), zap.Error(err))
			done.Next, done.Spread = last, r.ahead()
			return done, nil
		}
		last = p.ImageID
	}
	done.Spread = r.ahead()
	return done, nil
}

// ahead returns the time until the last request is due.
func (r *Reprocessor) ahead() time.Duration { return max(0, r.next.Add(-r.pause).Sub(r.now())) }
