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
)

// Image is one image of a product: the fields that clients see, and the fields that order the work on it.
type Image struct {
	ID        ImageID
	ProductID ProductID
	Position  int // from 0
	SourceURL string

	Status      Status
	Attempts    int // ended attempts of the current request, the successful one included
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

	// While the image has a job, the job's row has these fields; the image's row gets them with the outcome.
	FencingToken int64     // grows with each Begin and with each change that takes the image from its attempt
	Prefix       string    // of the keys of the last attempt's objects
	PipelineHash string    // of the pipeline that is requested, or was used once ready
	RequestedAt  time.Time // of the current request; if the request is delayed, when it is due

	// The fields of the job. All are zero when the image is idle.
	JobState           JobState
	JobID              string // UUID of the one job that may begin; "" when idle
	Class              Class
	Host               string    // against whose window the job counts, as HostKey returns it, or the target of a redirect
	Traceparent        string    // of the request; may be empty
	UnreportedAttempts int       // attempts begun since the last outcome
	PoisonSHA256       string    // in hex, of the source that crashed a codec in the current request; "": none
	NotBefore          time.Time // queued: when the job may be released; processing: when the attempt began
	ReleasedAt         time.Time // when the job was given to the workers; zero while it waits for the scheduler
	DueAt              time.Time // queued: NotBefore; processing: when the attempt should have ended
	DeferredSince      time.Time // the first deferral by a fault of our own, plus the time that the job waited in queues since
}

// Rendition is one stored file of an image.
type Rendition struct {
	Name    string
	Format  pipeline.Format
	Width   int // in pixels
	Height  int // in pixels
	Bytes   int64
	Score   float64 // SSIMULACRA2, as media.EncodedFile has it
	Lowered int     // as media.EncodedFile has it
	Key     string  // of the object
	Default bool    // its URL is in compressed_product_images
}

// BytesSaved returns the bytes of the source minus those of the default rendition; negative if the rendition is larger. ok
// is false if there is no default rendition or the source's size is unknown.
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
