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
	defaultLimit = 1000
	maxLimit     = 10_000

	// maxQueue bounds the delay of a scheduled request. It is far below the age at which the catalog fails a request.
	maxQueue = time.Hour

	// saveTimeout bounds the saving of a response after the context of its request has ended.
	saveTimeout = 2 * time.Second
)

// Reprocessor requests many images again, at a limited rate, so that live traffic goes first: the requests become due one
// after the other, and those of a call after those of earlier calls. It has no other state. A caller that needs more
// images than one call allows calls it again with the last Next. Queued and processing images are skipped.
type Reprocessor struct {
	images    ImageFinder
	catalog   ImageReprocessor
	responses SavedResponses
	spacing   time.Duration // time between two requests
	now       func() time.Time
	calls     *semaphore.Weighted // lets one call run at a time
	nextDue   time.Time           // earliest time at which the next request may be due; owned by the running call
	requested prometheus.Counter
	log       *zap.Logger
}

// NewReprocessor returns a Reprocessor and registers its metrics with reg. cfg.Rate is in images a second.
func NewReprocessor(images ImageFinder, requester ImageReprocessor, responses SavedResponses, cfg ReprocessorConfig,
	now func() time.Time, reg prometheus.Registerer, log *zap.Logger,
) *Reprocessor {
	r := &Reprocessor{
		images: images, catalog: requester, responses: responses,
		spacing: time.Duration(float64(time.Second) / cfg.Rate), now: now, log: log,
		calls:     semaphore.NewWeighted(1),
		requested: counter(reg, "vitrine_maintenance_reprocessor_requested_total", "Images requested again in bulk."),
	}
	return r
}

// Reprocess requests images again: up to limit images that match the filter and have ids above after, in the order of
// their ids. A limit of 0 means 1000; a limit above 10000 is fault.Invalid. It may stop before limit: only a Next of 0
// means that no match is left. If ctx ends or the database fails after the first request, it returns the result so far
// without an error, and the caller continues at Next. It returns fault.TooMany if the last request of earlier calls is
// due more than an hour from now.
func (r *Reprocessor) Reprocess(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
) (catalog.BulkResult, error) {
	if err := r.calls.Acquire(ctx, 1); err != nil {
		return catalog.BulkResult{}, fmt.Errorf("wait for another call: %w", err)
	}
	defer r.calls.Release(1)
	return r.reprocess(ctx, filter, after, limit)
}

// ReprocessOnce is Reprocess for a request that a client may repeat under one key. The first request saves the response that
// respond makes of its result; later requests get the saved response, and replayed is true. A request waits for the one in
// progress. catalog.ErrKeyReused if the key has another fingerprint. After a crash, and in another process at the same time,
// the request may be carried out again: images that are in work by then are skipped, and one response is saved.
func (r *Reprocessor) ReprocessOnce(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
	key catalog.IdempotencyKey, respond func(catalog.BulkResult) (catalog.SavedResponse, error),
) (saved catalog.SavedResponse, replayed bool, err error) {
	if err := r.calls.Acquire(ctx, 1); err != nil {
		return nil, false, fmt.Errorf("wait for another call: %w", err)
	}
	defer r.calls.Release(1)
	if saved, replayed, err = r.responses.SavedResponse(ctx, key); err != nil || replayed {
		return saved, replayed, err
	}
	result, err := r.reprocess(ctx, filter, after, limit)
	if err != nil {
		return nil, false, err
	}
	response, err := respond(result)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if saved, err = r.responses.SaveResponse(ctx, key, response); err != nil {
		return nil, false, fmt.Errorf("save response: %w", err)
	}
	return saved, false, nil
}

// reprocess is Reprocess for the running call.
func (r *Reprocessor) reprocess(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
) (catalog.BulkResult, error) {
	if limit == 0 {
		limit = defaultLimit
	}
	if limit < 0 || limit > maxLimit {
		return catalog.BulkResult{}, fault.InvalidFields([]fault.Field{
			{Path: "limit", Code: "out_of_range", Detail: fmt.Sprintf("a number from 1 to %d", maxLimit)},
		})
	}
	if r.nextDue.Sub(r.now()) > maxQueue {
		return catalog.BulkResult{}, fault.New(fault.TooMany, "reprocess_queue_full",
			"the images of earlier bulk requests become due over more than an hour; repeat the request later")
	}
	images, next, err := r.images.SelectImages(ctx, filter, after, limit)
	if err != nil {
		return catalog.BulkResult{}, fmt.Errorf("select images: %w", err)
	}
	return r.request(ctx, images, filter, next)
}

// request requests the images. next is where the next call continues if all are requested.
func (r *Reprocessor) request(ctx context.Context, images []ImageRef, filter catalog.Filter, next catalog.ImageID,
) (catalog.BulkResult, error) {
	done := catalog.BulkResult{Next: next}
	var last catalog.ImageID
	for _, img := range images {
		delay := max(0, r.nextDue.Sub(r.now()))
		err := r.catalog.ReprocessIf(ctx, img.ProductID, img.ImageID, filter, delay)
		switch {
		case err == nil:
			r.requested.Inc()
			r.nextDue = r.now().Add(delay + r.spacing)
			done.Requested++
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			done.Skipped++
		case last == 0:
			return catalog.BulkResult{}, fmt.Errorf("request image %d again: %w", img.ImageID, err)
		default:
			r.log.Warn("bulk request interrupted", zap.Int64("image_id", int64(img.ImageID)), zap.Error(err))
			done.Next, done.Spread = last, r.spread()
			return done, nil
		}
		last = img.ImageID
	}
	done.Spread = r.spread()
	return done, nil
}

// spread returns the time until the last scheduled request is due.
func (r *Reprocessor) spread() time.Duration { return max(0, r.nextDue.Add(-r.spacing).Sub(r.now())) }
