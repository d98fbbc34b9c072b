package catalog

import (
	"time"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// ImageID identifies an image. Zero is no image.
type ImageID int64

// Status is the state of an image as clients see it.
type Status string

// The values of Status.
const (
	Pending Status = "pending"
	Ready   Status = "ready"
	Failed  Status = "failed"
)

// JobState is the state of an image's job. A queued or processing image may be Ready for clients: it is reprocessed.
type JobState string

// The values of JobState.
const (
	Idle       JobState = "idle"       // there is no job
	Queued     JobState = "queued"     // the job waits for the scheduler, or is in the outbox or in Kafka
	Processing JobState = "processing" // the attempt with the row's fencing token has begun
)

// Class is the precedence of a job.
type Class string

// The values of Class. The scheduler releases live jobs first.
const (
	Live Class = "live" // a client waits for the image
	Bulk Class = "bulk" // one of many images that an operator requested again

	// BackfillClass is the class of the jobs of backfills. They are released when no other job waits, and clients do not see
	// them.
	BackfillClass Class = "backfill"
)

// Image is one image of a product. The first fields are those that clients see; from FencingToken on they belong to the
// protocol by which workers process the image.
type Image struct {
	ID        ImageID
	ProductID ProductID
	Position  int // index in the product's Images
	SourceURL string

	Status      Status
	Attempts    int // ended attempts of the current request that count, the successful one included
	ErrorCode   media.Code
	ErrorDetail string
	Width       int    // of the upright source, in pixels; 0 until known
	Height      int    // of the upright source, in pixels; 0 until known
	Placeholder string // ThumbHash in base64, or ""
	Renditions  []Rendition
	Dropped     []media.Dropped // files that the pipeline requests and the codec left out

	ReprocessError media.Code // why an image that stayed ready could not be reprocessed
	SourceSHA256   string     // in hex
	SourceBytes    int64

	// While the image has a job, the job's row has these fields, and Attempts. The image's row gets them with the outcome.
	FencingToken int64     // incremented by each Begin, and by each change that supersedes a running attempt
	Prefix       string    // common beginning of the keys of the last attempt's objects
	PipelineHash string    // the pipeline of the last request; after Finish also that of the renditions
	RequestedAt  time.Time // when the current request was made or, if it was delayed, when it was due
	OutputHash   string    // pipeline.Spec.OutputHash of the renditions; "" if PipelineHash has to be read instead
	OriginalKey  string    // key of the source in the bucket of the originals; "" if it is not kept
	BackfillID   int64     // the last backfill that has tried this image; 0 if none has

	// The fields of the job. All are zero when the image is idle.
	JobState           JobState
	JobID              string // UUID of the one job that may begin; "" when idle
	Class              Class
	Host               string    // against whose window the job counts, as HostKey returns it, or the target of a redirect
	Traceparent        string    // of the request; may be empty
	UnreportedAttempts int       // attempts begun since the last outcome
	PoisonSHA256       string    // in hex: the source that crashed a codec during the current request, or ""
	NotBefore          time.Time // when the job may be released; of a deferred request that has begun: when it began
	ReleasedAt         time.Time // when the job was given to the workers; zero while it waits for the scheduler
	DueAt              time.Time // queued: NotBefore; processing: when the attempt should have ended
	DeferredSince      time.Time // the first deferral by a fault of our own, plus the time that the job waited in queues since
	Backfill           BackfillJob
}

// BackfillJob has those fields of a backfill's job that Image has of the last request of others. Clients see some of the
// latter, so they stay until an outcome that clients see. It is zero in a job of another class.
type BackfillJob struct {
	ID           int64 // of the backfill
	PipelineHash string
	Attempts     int
	RequestedAt  time.Time
	SkipMissing  bool // without an original the image is skipped, instead of read from its URL
}

// ReprocessStatus returns Pending while a ready image is reprocessed other than by a backfill, Failed if its last
// reprocessing has failed, and "" otherwise. The status of an image that is not ready says the same of its first processing.
func (img Image) ReprocessStatus() Status {
	switch {
	case img.Status != Ready:
		return ""
	case img.Backfill.ID == 0 && (img.JobState == Queued || img.JobState == Processing):
		return Pending
	case img.ReprocessError != "":
		return Failed
	default:
		return ""
	}
}

// Rendition is one stored file of an image.
type Rendition struct {
	Name    string
	Format  pipeline.Format
	Width   int // in pixels
	Height  int // in pixels
	Bytes   int64
	Score   float64 // SSIMULACRA2 score, 0 to 100; 0 if it was not measured
	Lowered int     // the quality, if it was lowered to make the file smaller than the source; else 0
	Key     string  // key of the object in the bucket
	Default bool    // set if this is the default rendition, whose key is in Product.Compressed
}

// BytesSaved returns the bytes of the source minus those of the default rendition. The result is negative if the
// rendition is larger. ok is false if there is no default rendition or the source's size is unknown.
func (img Image) BytesSaved() (bytes int64, ok bool) {
	for _, r := range img.Renditions {
		if r.Default {
			return img.SourceBytes - r.Bytes, img.SourceBytes > 0
		}
	}
	return 0, false
}

// LargerThanSource reports whether r has the dimensions of the source and more bytes.
func (img Image) LargerThanSource(r Rendition) bool {
	return img.SourceBytes > 0 && r.Bytes > img.SourceBytes && r.Width == img.Width && r.Height == img.Height
}
