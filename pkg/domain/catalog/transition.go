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
	AloneFrom = 2 // begins without an outcome from which a picture runs alone in its process
	MaxBegins = 5 // begins without an outcome at which it fails as worker_crashed
)

// ErrDone says that a request has nothing left to start: its ticket is used up, or the product is gone.
var ErrDone = fault.New(fault.Conflict, "request_done", "the request has been dealt with")

// ErrGivenUp says that the picture has been failed for good, because its tries or its time are used up. It is written.
var ErrGivenUp = fault.New(fault.Conflict, "given_up", "the picture has been given up")

// ErrSuperseded says that an attempt no longer holds its picture: another attempt has begun, or an outcome is written.
var ErrSuperseded = fault.New(fault.Conflict, "attempt_superseded", "the attempt no longer holds the picture")

// Request names a request by its ticket.
type Request struct {
	ProductID   ProductID
	ImageID     ImageID
	Ticket      string
	Traceparent string // of the request, carried on to what follows from it; may be empty
}

// Attempt is one try at one image. Begin returns it, and its fence names it.
type Attempt struct {
	Request
	Fence        int64
	Prefix       string // its objects' keys begin with it
	SourceURL    string
	PipelineHash string
	Number       int    // of the tries for the current request, from 1
	Killer       string // SHA-256 of the content that a codec did not survive in an earlier try; "": none
	Alone        bool   // earlier tries died without a word: run nothing beside it
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
	img.Work, img.Ticket, img.DueAt = Queued, ticket, now.Add(delay)
}

// request is the message that carries the picture's ticket.
func (img *Image) request(traceparent string, delay time.Duration) Outgoing {
	m := event.New(img.Ticket, event.Key(int64(img.ProductID)), event.ImageRequested{
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

// changed raises the version, for a change that clients can see, and returns the event that says so.
func (p *Product) changed(traceparent, id string) Outgoing {
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
func (p *Product) begin(r Request, nonce, changedID string, now time.Time, budget time.Duration,
) (a Attempt, c Change, givenUp bool, err error) {
	img := p.image(r.ImageID)
	if p.Deleted || img == nil || img.Ticket != r.Ticket || r.Ticket == "" {
		return Attempt{}, Change{}, false, ErrDone
	}
	img.Fence++
	img.Begins++
	if img.Begins >= MaxBegins {
		return Attempt{}, p.fail(img, r.Traceparent, Died(), changedID), true, nil
	}
	img.Prefix = fmt.Sprintf("products/%d/%d/%d-%s/", p.ID, img.ID, img.Fence, nonce)
	img.Work, img.DueAt = Processing, now.Add(budget)
	return Attempt{
		Request: r, Fence: img.Fence, Prefix: img.Prefix, SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
		Number: img.Attempts + 1, Killer: img.KillerSHA256, Alone: img.Begins >= AloneFrom,
	}, Change{Intents: []Intent{{Prefix: img.Prefix, ImageID: img.ID, Due: budget}}}, false, nil
}

// postpone queues a request that has not begun under a new ticket. It is never given up, because nothing has been tried, and
// Begins stays, because nothing is known of the attempts that it counts.
func (p *Product) postpone(r Request, id string, now time.Time, wait func(age time.Duration) time.Duration) (Change, error) {
	img := p.image(r.ImageID)
	if p.Deleted || img == nil || img.Work == Idle || img.Ticket != r.Ticket || r.Ticket == "" {
		return Change{}, ErrSuperseded
	}
	delay := wait(now.Sub(img.RequestedAt))
	img.queue(id, now, delay)
	return Change{Outbox: []Outgoing{img.request(r.Traceparent, delay)}}, nil
}

// held returns the attempt's image, or ErrSuperseded.
func (p *Product) held(a Attempt) (*Image, error) {
	img := p.image(a.ImageID)
	if p.Deleted || img == nil || img.Work != Processing || img.Fence != a.Fence {
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
	c := Change{Adopt: []string{a.Prefix}}
	if img.publishedPrefix() != a.Prefix {
		c.Intents = img.discard(grace)
	}
	img.Status, img.ErrorCode, img.ErrorDetail, img.RemakeError = Ready, "", "", ""
	img.Width, img.Height, img.Placeholder = r.Width, r.Height, r.Placeholder
	img.SourceSHA256, img.SourceBytes = r.SourceSHA256, r.SourceBytes
	img.Renditions, img.Dropped = r.Renditions, r.Dropped
	img.settle()
	c.Outbox = append(c.Outbox, p.changed(a.Traceparent, changedID))
	return c, nil
}

// settle ends the picture's work with an outcome.
func (img *Image) settle() {
	img.Attempts++
	img.Begins, img.KillerSHA256 = 0, ""
	img.Work, img.Ticket, img.DueAt = Idle, "", time.Time{}
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
		img.RemakeError = f.Code
	} else {
		img.Status, img.ErrorCode, img.ErrorDetail = Failed, f.Code, f.Detail
	}
	img.settle()
	dead := event.New(deadID(img), event.Key(int64(p.ID)), event.ImageDead{
		ProductID: int64(p.ID), ImageID: int64(img.ID), Fence: img.Fence, Code: string(f.Code), Detail: f.Detail,
		SourceURL: img.SourceURL, Attempts: img.Attempts, PipelineHash: img.PipelineHash,
	})
	dead.Traceparent = traceparent
	return Change{Outbox: []Outgoing{p.changed(traceparent, changedID), {Message: dead}}}
}

// deadID is one id for each picture and fence, so that a death told twice is known as one.
func deadID(img *Image) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "vitrine.io/images/%d/fences/%d/dead", img.ID, img.Fence)).String()
}

// requeue is how a picture comes again.
type requeue struct {
	policy pipeline.Retry
	spend  bool                                             // the try counts
	wait   func(tries int, age time.Duration) time.Duration // before it comes again; age is the request's
	ids    [2]string                                        // of the event and of the new ticket
}

// again queues the held image under a new ticket. When the tries are used up, or the same content has cost a second codec,
// or faults of the platform's own have deferred it for too long, the image fails instead.
func (p *Product) again(a Attempt, f *media.Failure, q requeue, now time.Time) (c Change, givenUp bool, err error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, false, err
	}
	tries, age := img.Attempts, now.Sub(img.RequestedAt)
	if q.spend {
		tries++
		givenUp = tries >= q.policy.MaxAttempts || f.Content != "" && f.Content == img.KillerSHA256
	} else {
		givenUp = age > q.policy.MaxAge.D()
	}
	if givenUp {
		return p.fail(img, a.Traceparent, f, q.ids[0]), true, nil
	}
	wait := q.wait(tries, age)
	img.Attempts, img.Begins = tries, 0
	if f.Content != "" {
		img.KillerSHA256 = f.Content
	}
	img.queue(q.ids[1], now, wait)
	c = Change{Outbox: []Outgoing{img.request(a.Traceparent, wait)}}
	if q.spend { // attempts are visible
		c.Outbox = append(c.Outbox, p.changed(a.Traceparent, q.ids[0]))
	}
	return c, false, nil
}

// reprocess asks for the picture anew, with another specification. Whatever works on it is superseded. A picture that is
// ready stays visible until it is replaced.
func (p *Product) reprocess(img *Image, ask request, now time.Time) Change {
	if img.Status == Failed {
		img.Status, img.ErrorCode, img.ErrorDetail = Pending, "", ""
	}
	img.Fence++ // an attempt whose COMMIT was lost must not take the new request for its own outcome
	img.Attempts, img.Begins, img.RemakeError, img.KillerSHA256 = 0, 0, "", ""
	img.PipelineHash, img.RequestedAt = ask.hash, now.Add(ask.delay) // its age is not its place in a queue
	img.queue(ask.ticket, now, ask.delay)
	return Change{Outbox: []Outgoing{p.changed(ask.traceparent, ask.changedID), img.request(ask.traceparent, ask.delay)}}
}

// request is what somebody asks for a picture.
type request struct {
	hash, ticket, changedID string
	traceparent             string
	delay                   time.Duration
}

// discard returns the intents for what clients can still see of a picture that goes. What an attempt may be writing has its
// own since it began.
func (img *Image) discard(grace time.Duration) []Intent {
	if prefix := img.publishedPrefix(); prefix != "" {
		return []Intent{{Prefix: prefix, ImageID: img.ID, Due: grace}}
	}
	return nil
}

// release hands the held picture back with the same ticket, as if it had not begun.
func (p *Product) release(a Attempt, now time.Time) (Change, error) {
	img, err := p.held(a)
	if err != nil {
		return Change{}, err
	}
	img.Begins = max(0, img.Begins-1)
	img.Work, img.DueAt = Queued, now
	return Change{}, nil
}

// repeat says the picture's request once more, under the same ticket. The next repetition is due when as much time again
// has passed as since the request, at most an hour.
func (p *Product) repeat(id ImageID, now time.Time, patience time.Duration) (Change, error) {
	img := p.image(id)
	if p.Deleted || img == nil || img.Work == Idle || now.Before(img.DueAt.Add(patience)) {
		return Change{}, ErrDone
	}
	next := min(max(now.Sub(img.RequestedAt), patience), time.Hour)
	img.DueAt = now.Add(next - patience)
	return Change{Outbox: []Outgoing{img.request("", 0)}}, nil
}

// Died is the failure of a picture whose workers kept dying on it.
func Died() *media.Failure {
	return media.Fail(media.WorkerCrashed, "the workers that tried this picture stopped without a word", nil)
}
