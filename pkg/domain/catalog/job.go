package catalog

import (
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
)

// HostKey returns the host that an image's source counts as: the registrable domain of its name, by the public suffix list
// with its private section, so that customers of one hosting provider are apart. An IP address is its own key. "" if the URL
// has no host.
func HostKey(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if net.ParseIP(name) != nil {
		return name
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name // a public suffix itself, or a name without dots
}

// newJob is what a request for an image consists of.
type newJob struct {
	hash, id, traceparent string
	class                 Class
	delay                 time.Duration
}

// request gives the image the first job of a new request.
func (img *Image) request(r newJob, now time.Time) {
	img.endJob()
	img.Class, img.Host, img.Traceparent = r.class, HostKey(img.SourceURL), r.traceparent
	img.PipelineHash, img.RequestedAt = r.hash, now.Add(r.delay)
	img.queue(r.id, now, r.delay)
}

// queue gives the image a new job of the same request. It waits for the scheduler, and is not released before delay has
// passed.
func (img *Image) queue(jobID string, now time.Time, delay time.Duration) {
	img.JobState, img.JobID, img.ReleasedAt = Queued, jobID, time.Time{}
	img.NotBefore = now.Add(delay)
	img.DueAt = img.NotBefore
}

// beginJob marks the job as processing. The time from NotBefore until now was spent in queues: it must not count as a
// deferral, or a long backlog would fail images. NotBefore is indexed, so it changes only if it is used again.
func (img *Image) beginJob(now time.Time, budget time.Duration) {
	img.excludeQueueTime(now)
	img.JobState, img.DueAt = Processing, now.Add(budget)
}

// excludeQueueTime moves DeferredSince on by the time that the job has waited in queues, up to now.
func (img *Image) excludeQueueTime(now time.Time) {
	if !img.DeferredSince.IsZero() && now.After(img.NotBefore) {
		img.DeferredSince = img.DeferredSince.Add(now.Sub(img.NotBefore))
		img.NotBefore = now
	}
}

// endJob leaves the image without a job.
func (img *Image) endJob() {
	img.JobState, img.JobID, img.Class, img.Host, img.Traceparent = Idle, "", "", "", ""
	img.UnreportedAttempts, img.PoisonSHA256 = 0, ""
	img.NotBefore, img.ReleasedAt, img.DueAt, img.DeferredSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	img.Backfill = BackfillJob{}
}

// jobHash returns the hash of the pipeline that the image's job names.
func (img *Image) jobHash() string {
	if img.Backfill.ID != 0 {
		return img.Backfill.PipelineHash
	}
	return img.PipelineHash
}

// jobAttempts returns where the ended attempts of the image's job are counted.
func (img *Image) jobAttempts() *int {
	if img.Backfill.ID != 0 {
		return &img.Backfill.Attempts
	}
	return &img.Attempts
}

// deferFor records a deferral and returns for how long faults of our own have deferred the request. A busy host is no such
// fault: it only moves the job to the window of the host that was busy. An outage of the network ages no request.
func (img *Image) deferFor(f *media.Failure, now time.Time) time.Duration {
	if f.Code == media.HostBusy {
		if f.Host != "" {
			img.Host = f.Host
		}
		return 0
	}
	if f.Code.IsOutage() {
		return 0
	}
	if img.DeferredSince.IsZero() {
		img.DeferredSince = now
	}
	return now.Sub(img.DeferredSince)
}

// JobMessage returns the message that gives the image's job to the workers. Store and scheduler send it in the transaction
// that sets ReleasedAt.
func (img Image) JobMessage() event.Message {
	var body event.Body = event.ImageRequested{
		ProductID: int64(img.ProductID), ImageID: int64(img.ID), SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
	}
	if b := img.Backfill; b.ID != 0 {
		source := ""
		if img.OriginalKey != "" {
			source = event.SourceOriginal
		}
		body = event.ImageBackfill{
			ProductID: int64(img.ProductID), ImageID: int64(img.ID), SourceURL: img.SourceURL, PipelineHash: b.PipelineHash,
			BackfillID: b.ID, Source: source,
		}
	}
	m := event.New(img.JobID, event.Key(int64(img.ProductID)), body)
	m.Traceparent = img.Traceparent
	return m
}
