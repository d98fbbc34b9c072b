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

// The numbers of the protocol.
const (
	IsolateFrom           = 2 // begins without an outcome from which a picture runs alone in its process
	MaxUnreportedAttempts = 5 // begins without an outcome at which it fails as worker_crashed
)

// ErrDone says that a request has nothing left to start: its ticket is used up, or the product is gone.
var ErrDone = fault.New(fault.Conflict, "request_done", "the request has been dealt with")

// ErrGivenUp says that the picture has been failed for good, because its tries or its time are used up. It is written.
var ErrGivenUp = fault.New(fault.Conflict, "given_up", "the picture has been given up")

// ErrSuperseded says that an attempt no longer holds its picture: another attempt has begun, or an outcome is written.
var ErrSuperseded = fault.New(fault.Conflict, "attempt_superseded", "the attempt no longer holds the picture")

// Job names a request by its ticket.
type Job struct {
	ProductID   ProductID
	ImageID     ImageID
	JobID       string
	Traceparent string // of the request, carried on to what follows from it; may be empty
}

// Attempt is one try at one image. Begin returns it, and its fence names it.
type Attempt struct {
	Job
	FencingToken int64
	Prefix       string // its objects' keys begin with it
	SourceURL    string
	PipelineHash string
	Number       int    // of the tries for the current request, from 1
	PoisonSHA256 string // SHA-256 of the content that a codec did not survive in an earlier try; "": none
	Isolated     bool   // earlier tries died without a word: run nothing beside it
}

// Result is what a finished attempt has stored.
type Result struct {
	Width, Height int // of the source, upright
	Placeholder   string
	SourceSHA256  string
	SourceBytes   int64
	Renditions    []Rendition
	Dropped       []media.Dropped
}

// queue asks for work on the picture: a new ticket, due after delay.
func (img *Image) queue(ticket string, now time.Time, delay time.Duration) {
	img.JobState, img.JobID, img.DueAt = Queued, ticket, now.Add(delay)
}

// jobMessage is the message that carries the picture's ticket.
func (img *Image) jobMessage(traceparent string, delay time.Duration) Outgoing {
	m := event.New(img.JobID, event.Key(int64(img.ProductID)), event.ImageRequested{
		ProductID: int64(img.ProductID), ImageID: int64(img.ID), SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
	})
	m.Traceparent = traceparent
	return Outgoing{Message: m, Delay: delay}
}

// publishedPrefix returns where the picture's visible objects stand, or "".
func (img *Image) publishedPrefix() string {
	if len(img.Renditions) == 0 {
		return ""
	}
	key := img.Renditions[0].Key
	return key[:strings.LastIndexByte(key, '/')+1]
}

// bumpVersion raises the version, for a change that clients can see, and returns the event that says so.
func (p *Product) bumpVersion(traceparent, id string) Outgoing {
	p.Version++
	p.Compressed = p.CompressedKeys()
	return p.announcement(traceparent, id)
}

// announcement is the event of the product's present version.
func (p *Product) announcement(traceparent, id string) Outgoing {
	m := event.New(id, event.Key(int64(p.ID)),
		event.ProductChanged{ProductID: int64(p.ID), Version: p.Version, Deleted: p.Deleted})
	m.Traceparent = traceparent
	return Outgoing{Message: m}
}

// begin starts an attempt for the holder of the ticket: the fence rises and a prefix of its own is minted. nonce makes the
// prefix unguessable and, after a restore from backup, unique. budget is how long the attempt may take. Too many begins
// without an outcome fail the image instead: givenUp is true, and there is no attempt.
func (p *Product) begin(r Job, nonce, changedID string, now time.Time, budget time.Duration,
) (a Attempt, c Change, givenUp bool, err error) {
	img := p.image(r.ImageID)
	if p.Deleted || img == nil || img.JobID != r.JobID || r.JobID == "" {
		return Attempt{}, Change{}, false, ErrDone
	}
	img.FencingToken++
	img.UnreportedAttempts++
	if img.UnreportedAttempts >= MaxUnreportedAttempts {
		return Attempt{}, p.fail(img, r.Traceparent, WorkerCrash(), changedID), true, nil
	}
	img.Prefix = fmt.Sprintf("products/%d/%d/%d-%s/", p.ID, img.ID, img.FencingToken, nonce)
	img.JobState, img.DueAt = Processing, now.Add(budget)
	return Attempt{
		Job: r, FencingToken: img.FencingToken, Prefix: img.Prefix, SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
		Number: img.Attempts + 1, PoisonSHA256: img.PoisonSHA256, Isolated: img.UnreportedAttempts >= IsolateFrom,
	}, Change{Deletions: []ScheduledDeletion{{Prefix: img.Prefix, ImageID: img.ID, Due: budget}}}, false, nil
}

// postpone queues a request that has not begun under a new ticket. It is never given up, because nothing has been tried, and
// Begins stays, because nothing is known of the attempts that it counts.
func (p *Product) postpone(r Job, id string, now time.Time, wait func(age time.Duration) time.Duration) (Change, error) {
	img := p.image(r.ImageID)
	if p.Deleted || img == nil || img.JobState == Idle || img.JobID != r.JobID || r.JobID == "" {
		return Change{}, ErrSuperseded
	}
	delay := wait(now.Sub(img.RequestedAt))
	img.queue(id, now, delay)
	return Change{Outbox: []Outgoing{img.jobMessage(r.Traceparent, delay)}}, nil
}

// held returns the attempt's image, or ErrSuperseded.
func (p *Product) held(a Attempt) (*Image, error) {
	img := p.image(a.ImageID)
	if p.Deleted || img == nil || img.JobState != Processing || img.FencingToken != a.FencingToken {
		return nil, ErrSuperseded
	}
	return img, nil
}

// finish publishes the attempt's objects and retires those they replace.
func (p *Product) finish(a Attempt, r Result, grace time.Duration, changedID string) (Change, error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, err
	}
	c := Change{CancelDeletions: []string{a.Prefix}}
	if img.publishedPrefix() != a.Prefix {
		c.Deletions = img.scheduleDeletion(grace)
	}
	img.Status, img.ErrorCode, img.ErrorDetail, img.ReprocessError = Ready, "", "", ""
	img.Width, img.Height, img.Placeholder = r.Width, r.Height, r.Placeholder
	img.SourceSHA256, img.SourceBytes = r.SourceSHA256, r.SourceBytes
	img.Renditions, img.Dropped = r.Renditions, r.Dropped
	img.finalize()
	c.Outbox = append(c.Outbox, p.bumpVersion(a.Traceparent, changedID))
	return c, nil
}

// finalize ends the picture's work with an outcome.
func (img *Image) finalize() {
	img.Attempts++
	img.UnreportedAttempts, img.PoisonSHA256 = 0, ""
	img.JobState, img.JobID, img.DueAt = Idle, "", time.Time{}
}

// giveUp fails the held picture for good.
func (p *Product) giveUp(a Attempt, f *media.Failure, changedID string) (Change, error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, err
	}
	return p.fail(img, a.Traceparent, f, changedID), nil
}

// fail ends the picture's request without renditions. A picture that was ready stays so.
func (p *Product) fail(img *Image, traceparent string, f *media.Failure, changedID string) Change {
	if img.Status == Ready {
		img.ReprocessError = f.Code
	} else {
		img.Status, img.ErrorCode, img.ErrorDetail = Failed, f.Code, f.Detail
	}
	img.finalize()
	dead := event.New(deadID(img), event.Key(int64(p.ID)), event.ImageDead{
		ProductID: int64(p.ID), ImageID: int64(img.ID), FencingToken: img.FencingToken, Code: string(f.Code), Detail: f.Detail,
		SourceURL: img.SourceURL, Attempts: img.Attempts, PipelineHash: img.PipelineHash,
	})
	dead.Traceparent = traceparent
	return Change{Outbox: []Outgoing{p.bumpVersion(traceparent, changedID), {Message: dead}}}
}

// deadID is one id for each picture and fence, so that a death told twice is known as one.
func deadID(img *Image) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "vitrine.io/images/%d/fences/%d/dead", img.ID, img.FencingToken)).String()
}

// requeueOptions is how a picture comes again.
type requeueOptions struct {
	policy        pipeline.Retry
	countsAttempt bool                                             // the try counts
	wait          func(tries int, age time.Duration) time.Duration // before it comes again; age is the request's
	ids           [2]string                                        // of the event and of the new ticket
}

// requeue queues the held image under a new ticket. When the tries are used up, or the same content has cost a second codec,
// or faults of the platform's own have deferred it for too long, the image fails instead.
func (p *Product) requeue(a Attempt, f *media.Failure, q requeueOptions, now time.Time) (c Change, givenUp bool, err error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, false, err
	}
	tries, age := img.Attempts, now.Sub(img.RequestedAt)
	if q.countsAttempt {
		tries++
		givenUp = tries >= q.policy.MaxAttempts || f.Content != "" && f.Content == img.PoisonSHA256
	} else {
		givenUp = age > q.policy.MaxAge.D()
	}
	if givenUp {
		return p.fail(img, a.Traceparent, f, q.ids[0]), true, nil
	}
	wait := q.wait(tries, age)
	img.Attempts, img.UnreportedAttempts = tries, 0
	if f.Content != "" {
		img.PoisonSHA256 = f.Content
	}
	img.queue(q.ids[1], now, wait)
	c = Change{Outbox: []Outgoing{img.jobMessage(a.Traceparent, wait)}}
	if q.countsAttempt { // attempts are visible
		c.Outbox = append(c.Outbox, p.bumpVersion(a.Traceparent, q.ids[0]))
	}
	return c, false, nil
}

// reprocess asks for the picture anew, with another specification. Whatever works on it is superseded. A picture that is
// ready stays visible until it is replaced.
func (p *Product) reprocess(img *Image, ask reprocessRequest, now time.Time) Change {
	if img.Status == Failed {
		img.Status, img.ErrorCode, img.ErrorDetail = Pending, "", ""
	}
	img.FencingToken++ // an attempt whose COMMIT was lost must not take the new request for its own outcome
	img.Attempts, img.UnreportedAttempts, img.ReprocessError, img.PoisonSHA256 = 0, 0, "", ""
	img.PipelineHash, img.RequestedAt = ask.hash, now.Add(ask.delay) // its age is not its place in a queue
	img.queue(ask.jobID, now, ask.delay)
	return Change{Outbox: []Outgoing{p.bumpVersion(ask.traceparent, ask.changedID), img.jobMessage(ask.traceparent, ask.delay)}}
}

// reprocessRequest is what somebody asks for a picture.
type reprocessRequest struct {
	hash, jobID, changedID string
	traceparent            string
	delay                  time.Duration
}

// scheduleDeletion returns the intents for what clients can still see of a picture that goes. What an attempt may be writing has its
// own since it began.
func (img *Image) scheduleDeletion(grace time.Duration) []ScheduledDeletion {
	if prefix := img.publishedPrefix(); prefix != "" {
		return []ScheduledDeletion{{Prefix: prefix, ImageID: img.ID, Due: grace}}
	}
	return nil
}

// release hands the held picture back with the same ticket, as if it had not begun.
func (p *Product) release(a Attempt, now time.Time) (Change, error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, err
	}
	img.UnreportedAttempts = max(0, img.UnreportedAttempts-1)
	img.JobState, img.DueAt = Queued, now
	return Change{}, nil
}

// republish says the picture's request once more, under the same ticket. The next repetition is due when as much time again
// has passed as since the request, at most an hour.
func (p *Product) republish(id ImageID, now time.Time, patience time.Duration) (Change, error) {
	img := p.image(id)
	if p.Deleted || img == nil || img.JobState == Idle || now.Before(img.DueAt.Add(patience)) {
		return Change{}, ErrDone
	}
	next := min(max(now.Sub(img.RequestedAt), patience), time.Hour)
	img.DueAt = now.Add(next - patience)
	return Change{Outbox: []Outgoing{img.jobMessage("", 0)}}, nil
}

// WorkerCrash is the failure of a picture whose workers kept dying on it.
func WorkerCrash() *media.Failure {
	return media.Fail(media.WorkerCrashed, "the workers that tried this picture stopped without a word", nil)
}
