package catalog

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// The limits of attempts that begin and report no outcome.
const (
	IsolateFrom           = 2 // number of unreported attempts from which an image is processed in isolation
	MaxUnreportedAttempts = 5 // number of unreported attempts at which the image fails as worker_crashed
)

// ErrDone says that nothing is left to do: the job is no longer the image's, or the product is deleted.
var ErrDone = fault.New(fault.Conflict, "request_done", "the request has ended")

// ErrGivenUp says that the image has failed, because its attempts or its time are used up. The failure is committed.
var ErrGivenUp = fault.New(fault.Conflict, "given_up", "the image has been given up")

// ErrSuperseded says that an attempt is no longer its image's current one: another attempt has begun, an outcome is
// committed, or the image was reprocessed or removed.
var ErrSuperseded = fault.New(fault.Conflict, "attempt_superseded", "the attempt no longer holds the image")

// Job is the order to process one image.
type Job struct {
	ProductID   ProductID
	ImageID     ImageID
	JobID       string
	Traceparent string // W3C trace context of the request, or ""; the messages that follow from the job have it, too
	BackfillID  int64  // of the backfill that the job belongs to; 0 if there is none
}

// Attempt is one execution of a job, identified by its fencing token.
type Attempt struct {
	Job
	UserID       UserID // of the product
	FencingToken int64
	Prefix       string // common beginning of the keys of its objects
	SourceURL    string
	PipelineHash string

	Original       Original // the source to read instead of SourceURL; zero: none
	SkipMissing    bool     // if Original cannot be read, the image is skipped instead of read from SourceURL
	OriginalPrefix string   // beginning of the key under which the source is kept; "": it is not

	Number       int    // number of this attempt within the current request, from 1
	PoisonSHA256 string // in hex: the source that crashed a codec in an earlier attempt, or ""
	Isolated     bool   // nothing else may run in the process, because earlier attempts reported no outcome
}

// Result is what a successful attempt has stored.
type Result struct {
	Width, Height int    // of the upright source, in pixels
	Placeholder   string // ThumbHash in base64, or ""
	SourceSHA256  string // in hex
	SourceBytes   int64
	OutputHash    string // pipeline.Spec.OutputHash of the specification
	OriginalKey   string // of the source, below Attempt.OriginalPrefix; "" if it was not stored
	Renditions    []Rendition
	Dropped       []media.Dropped
}

// publishedPrefix returns the prefix of the image's visible objects, or "".
func (img *Image) publishedPrefix() string {
	if len(img.Renditions) == 0 {
		return ""
	}
	key := img.Renditions[0].Key
	return key[:strings.LastIndexByte(key, '/')+1]
}

// incrementVersion increments the version after a visible change, and returns the product.changed event.
func (p *Product) incrementVersion(traceparent, id string) Outgoing {
	p.Version++
	p.Compressed = p.CompressedKeys()
	return p.changedMessage(traceparent, id)
}

// changedMessage returns the product.changed event of the product's current version.
func (p *Product) changedMessage(traceparent, id string) Outgoing {
	m := event.New(id, event.Key(int64(p.ID)),
		event.ProductChanged{ProductID: int64(p.ID), Version: p.Version, Deleted: p.Deleted})
	m.Traceparent = traceparent
	return Outgoing{Message: m}
}

// begin starts an attempt for the holder of the job id: it increments the fencing token and creates a prefix. b.nonce makes
// the prefix impossible to guess. After a restore from a backup, fencing tokens repeat, and the nonce keeps the prefix
// unique. At MaxUnreportedAttempts the image fails instead: givenUp is true, and there is no attempt.
func (p *Product) begin(job Job, b beginning, now time.Time) (a Attempt, c Change, givenUp bool, err error) {
	img := p.image(job.ImageID)
	if p.Deleted || img == nil || img.JobID != job.JobID || job.JobID == "" {
		return Attempt{}, Change{}, false, ErrDone
	}
	img.FencingToken++
	img.UnreportedAttempts++
	if img.UnreportedAttempts >= MaxUnreportedAttempts {
		return Attempt{}, p.fail(img, job.Traceparent, WorkerCrash(), b.changedID), true, nil
	}
	img.Prefix = fmt.Sprintf("%s%d/%d/%d-%s/", renditionsDir, p.ID, img.ID, img.FencingToken, b.nonce)
	img.beginJob(now, b.budget)
	a = Attempt{
		Job: job, UserID: p.UserID, FencingToken: img.FencingToken, Prefix: img.Prefix,
		SourceURL: img.SourceURL, PipelineHash: img.jobHash(), Number: *img.jobAttempts() + 1,
		PoisonSHA256: img.PoisonSHA256, Isolated: img.UnreportedAttempts >= IsolateFrom,
		Original: img.jobOriginal(), SkipMissing: img.Backfill.SkipMissing,
	}
	c.Deletions = []ScheduledDeletion{{Prefix: img.Prefix, ImageID: img.ID, Delay: b.budget}}
	if b.originalNonce != "" {
		a.OriginalPrefix = img.originalPrefix(p.ID, b.originalNonce)
		c.Deletions = append(c.Deletions, ScheduledDeletion{Prefix: a.OriginalPrefix, ImageID: img.ID, Delay: b.budget})
	}
	return a, c, false, nil
}

// beginning has the random and external values that the pure function Product.begin needs.
type beginning struct {
	nonce         string
	originalNonce string // "": the source is not kept
	changedID     string
	budget        time.Duration // how long the attempt may last
}

// postpone replaces a job that has not begun by one with another id. It never fails the image, because nothing was
// attempted. UnreportedAttempts stays, because the attempts that it counts are still unreported.
func (p *Product) postpone(job Job, f *media.Failure, id string, now time.Time,
	delayAt func(age time.Duration) time.Duration,
) (Change, error) {
	img := p.image(job.ImageID)
	if p.Deleted || img == nil || img.JobState == Idle || img.JobID != job.JobID || job.JobID == "" {
		return Change{}, ErrSuperseded
	}
	if img.JobState == Queued && f.Code == media.HostBusy {
		img.excludeQueueTime(now) // a busy host ages no request, however often it postpones a job
	}
	img.queue(id, now, delayAt(img.deferFor(f, now)))
	return Change{}, nil
}

// currentImage returns the attempt's image, or ErrSuperseded.
func (p *Product) currentImage(a Attempt) (*Image, error) {
	img := p.image(a.ImageID)
	if p.Deleted || img == nil || img.JobState != Processing || img.FencingToken != a.FencingToken {
		return nil, ErrSuperseded
	}
	return img, nil
}

// finish publishes the attempt's objects, and schedules the deletion of the objects that they replace.
func (p *Product) finish(a Attempt, r Result, grace time.Duration, changedID string) (Change, error) {
	img, err := p.currentImage(a)
	if err != nil {
		return Change{}, err
	}
	c := Change{CancelDeletions: []string{a.Prefix}}
	if a.OriginalPrefix != "" { // without an original, nothing is below it
		c.CancelDeletions = append(c.CancelDeletions, a.OriginalPrefix)
	}
	if img.publishedPrefix() != a.Prefix {
		c.Deletions = img.scheduleDeletion(grace)
	}
	c.Deletions = append(c.Deletions, img.adoptOriginal(r, grace)...)
	img.Status, img.ErrorCode, img.ErrorDetail, img.ReprocessError = Ready, "", "", ""
	img.Width, img.Height, img.Placeholder = r.Width, r.Height, r.Placeholder
	img.SourceSHA256, img.SourceBytes = r.SourceSHA256, r.SourceBytes
	img.Renditions, img.Dropped, img.OutputHash = r.Renditions, r.Dropped, r.OutputHash
	if b := img.Backfill; b.ID != 0 {
		img.PipelineHash, img.Attempts, img.RequestedAt, img.BackfillID = b.PipelineHash, b.Attempts, b.RequestedAt, b.ID
		c.Backfill = append(c.Backfill, BackfillEvent{BackfillID: b.ID, ImageID: img.ID, Kind: BackfillDone})
	}
	img.finalize()
	c.Outbox = append(c.Outbox, p.incrementVersion(a.Traceparent, changedID))
	return c, nil
}

// finalize ends the image's job with an outcome.
func (img *Image) finalize() {
	img.Attempts++
	img.endJob()
}

// failAttempt fails the attempt's image.
func (p *Product) failAttempt(a Attempt, f *media.Failure, changedID string) (Change, error) {
	img, err := p.currentImage(a)
	if err != nil {
		return Change{}, err
	}
	return p.fail(img, a.Traceparent, f, changedID), nil
}

// fail ends the image's request with a failure. An image that was ready stays ready. The failure of a backfill is not
// visible.
func (p *Product) fail(img *Image, traceparent string, f *media.Failure, changedID string) Change {
	if img.Backfill.ID != 0 {
		return img.failBackfill(f)
	}
	if img.Status == Ready {
		img.ReprocessError = f.Code
	} else {
		img.Status, img.ErrorCode, img.ErrorDetail = Failed, f.Code, f.Detail
	}
	img.finalize()
	dead := event.New(deadEventID(img), event.Key(int64(p.ID)), event.ImageDead{
		ProductID: int64(p.ID), ImageID: int64(img.ID), FencingToken: img.FencingToken, Code: string(f.Code), Detail: f.Detail,
		SourceURL: img.SourceURL, Attempts: img.Attempts, PipelineHash: img.PipelineHash,
	})
	dead.Traceparent = traceparent
	return Change{Outbox: []Outgoing{p.incrementVersion(traceparent, changedID), {Message: dead}}}
}

// deadEventID returns the same id for the same image and fencing token, so that consumers recognise a repeated event.
func deadEventID(img *Image) string {
	name := fmt.Appendf(nil, "vitrine.io/images/%d/fences/%d/dead", img.ID, img.FencingToken)
	return uuid.NewSHA1(uuid.NameSpaceURL, name).String()
}

// requeueOptions says how an image is queued after an attempt that did not succeed.
type requeueOptions struct {
	policy        pipeline.Retry
	countsAttempt bool                                                // whether the attempt counts against policy.MaxAttempts
	delay         func(attempts int, age time.Duration) time.Duration // for the new job; age is as Image.deferFor returns it
	ids           [2]string                                           // ids of the product.changed event and the new job
}

// requeue gives the attempt's image a new job. The image fails instead if its attempts are used up, if the same content
// has crashed a second codec, or if faults of our own have deferred it for too long. A busy host never fails it.
func (p *Product) requeue(a Attempt, f *media.Failure, q requeueOptions, now time.Time) (c Change, givenUp bool, err error) {
	img, err := p.currentImage(a)
	if err != nil {
		return Change{}, false, err
	}
	attempts, age := *img.jobAttempts(), time.Duration(0)
	if q.countsAttempt {
		attempts++
		givenUp = attempts >= q.policy.MaxAttempts || f.Content != "" && f.Content == img.PoisonSHA256
	} else {
		age = img.deferFor(f, now)
		givenUp = age > q.policy.MaxAge.D()
	}
	if givenUp {
		return p.fail(img, a.Traceparent, f, q.ids[0]), true, nil
	}
	delay := q.delay(attempts, age)
	*img.jobAttempts(), img.UnreportedAttempts = attempts, 0
	if f.Content != "" {
		img.PoisonSHA256 = f.Content
	}
	img.queue(q.ids[1], now, delay)
	if q.countsAttempt && img.Backfill.ID == 0 { // clients see the number of attempts
		c.Outbox = append(c.Outbox, p.incrementVersion(a.Traceparent, q.ids[0]))
	}
	return c, false, nil
}

// reprocess starts a new request for the image, with the pipeline of r. A running attempt is superseded. An image that is
// ready stays visible until it is replaced.
func (p *Product) reprocess(img *Image, r reprocessRequest, now time.Time) Change {
	if img.Status == Failed {
		img.Status, img.ErrorCode, img.ErrorDetail = Pending, "", ""
	}
	img.FencingToken++ // else confirmCommit of a superseded attempt would take this change for its own outcome
	img.Attempts, img.ReprocessError = 0, ""
	img.request(r.job, now)
	return Change{Outbox: []Outgoing{p.incrementVersion(r.job.traceparent, r.changedID)}}
}

// reprocessRequest is one request to reprocess an image, with the id of its product.changed event.
type reprocessRequest struct {
	job       newJob
	changedID string
}

// scheduleDeletion returns the deletion of the image's visible objects. Begin has already scheduled the deletion of the
// objects of a running attempt.
func (img *Image) scheduleDeletion(grace time.Duration) []ScheduledDeletion {
	if prefix := img.publishedPrefix(); prefix != "" {
		return []ScheduledDeletion{{Prefix: prefix, ImageID: img.ID, Delay: grace}}
	}
	return nil
}

// release queues the attempt's image under the same job id, as if the attempt had not begun. The job stays released, because
// its record is delivered again.
func (p *Product) release(a Attempt, now time.Time) (Change, error) {
	img, err := p.currentImage(a)
	if err != nil {
		return Change{}, err
	}
	img.UnreportedAttempts = max(0, img.UnreportedAttempts-1)
	img.JobState, img.DueAt = Queued, now
	return Change{}, nil
}

// republish sends the image's job again, under the same id, if it was released before releasedBefore and is overdue by
// timeout.
func (p *Product) republish(id ImageID, now, releasedBefore time.Time, timeout time.Duration) (Change, error) {
	img := p.image(id)
	if p.Deleted || img == nil || img.ReleasedAt.IsZero() || !img.ReleasedAt.Before(releasedBefore) ||
		now.Before(img.ReleasedAt.Add(timeout)) || now.Before(img.DueAt.Add(timeout)) {
		return Change{}, ErrDone
	}
	img.ReleasedAt = now
	return Change{Outbox: []Outgoing{{Message: img.JobMessage()}}}, nil
}

// WorkerCrash returns the failure of an image after MaxUnreportedAttempts.
func WorkerCrash() *media.Failure {
	return media.Fail(media.WorkerCrashed, "the workers that processed this image stopped without reporting an outcome", nil)
}
