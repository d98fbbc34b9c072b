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
	Queued     JobState = "queued"     // the job is in the outbox or in Kafka
	Processing JobState = "processing" // the attempt with the row's fencing token has begun
)

// Image is one image of a product. The first fields are those that clients see; from JobState on they belong to the
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

	JobState           JobState
	JobID              string     // UUID of the one job that may begin; "" when idle
	FencingToken       int64      // incremented by each Begin, and by each change that supersedes a running attempt
	UnreportedAttempts int        // attempts begun since the last outcome
	Prefix             string     // common beginning of the keys of the last attempt's objects
	ReprocessError     media.Code // why an image that stayed ready could not be reprocessed
	SourceSHA256       string     // in hex
	SourceBytes        int64
	PoisonSHA256       string    // in hex: the source that crashed a codec during the current request, or ""
	PipelineHash       string    // the pipeline of the last request; after Finish also that of the renditions
	RequestedAt        time.Time // when the current request was made or, if it was delayed, when it was due
	DueAt              time.Time // of a queued image: when its job may begin; of a processing one: when it should have ended
}

// ReprocessStatus returns Pending while a ready image is reprocessed, Failed if its last reprocessing has failed, and ""
// otherwise. The status of an image that is not ready says the same of its first processing.
func (img Image) ReprocessStatus() Status {
	switch {
	case img.Status != Ready:
		return ""
	case img.JobState == Queued || img.JobState == Processing:
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
