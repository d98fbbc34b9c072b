package catalog

import (
	"time"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// ImageID names a picture of a product. Zero is no picture.
type ImageID int64

// Status is what a client sees of a picture.
type Status string

// The states a client sees.
const (
	Pending Status = "pending"
	Ready   Status = "ready"
	Failed  Status = "failed"
)

// JobState is what the system is doing about a picture. A picture in work may be visible as ready: it is being remade.
type JobState string

// The states of work.
const (
	Idle       JobState = "idle"       // nothing is asked
	Queued     JobState = "queued"     // a request with the row's ticket is in the outbox or in Kafka
	Processing JobState = "processing" // the holder of the row's fence is at it
)

// Image is one picture of a product: what a client sees, and the protocol that keeps work on it safe.
type Image struct {
	ID        ImageID
	ProductID ProductID
	Position  int // from 0
	SourceURL string

	Status      Status
	Attempts    int // ended tries of the current request, the successful one included
	ErrorCode   media.Code
	ErrorDetail string
	Width       int // of the source, upright, in pixels; 0 until known
	Height      int
	Placeholder string // ThumbHash in base64, or ""
	Renditions  []Rendition
	Dropped     []media.Dropped // what the specification asks for besides, and was not worth its bytes

	JobState           JobState
	JobID              string     // UUID of the one request that may start work; "" when idle
	FencingToken       int64      // grows with every Begin, and with what takes the work away; only its holder may finish
	UnreportedAttempts int        // begins since the last outcome: what dies without a word
	Prefix             string     // objects of the last Begin stand below it
	ReprocessError     media.Code // why a picture that stayed ready could not be remade
	SourceSHA256       string     // hex
	SourceBytes        int64
	PoisonSHA256       string    // hex: content that a codec did not survive in the current request; "" if it survived all
	PipelineHash       string    // the specification asked for, or used once ready
	RequestedAt        time.Time // when the current request was first made, or is to become due
	DueAt              time.Time // when the current work should be done; the sweeper looks later
}

// Rendition is one stored file of a picture.
type Rendition struct {
	Name    string
	Format  pipeline.Format
	Width   int
	Height  int
	Bytes   int64
	Score   float64 // SSIMULACRA2, as an Output has it
	Lowered int     // as an Output has it
	Key     string  // of the object
	Default bool    // the one in compressed_product_images
}

// BytesSaved returns by how much the default rendition is smaller than the source. It is negative where it is larger. ok is
// false while there is none.
func (img Image) BytesSaved() (bytes int64, ok bool) {
	for _, r := range img.Renditions {
		if r.Default {
			return img.SourceBytes - r.Bytes, img.SourceBytes > 0
		}
	}
	return 0, false
}

// Exceeds reports whether a rendition of the picture has as many pixels as the source, and more bytes.
func (img Image) Exceeds(r Rendition) bool {
	return img.SourceBytes > 0 && r.Bytes > img.SourceBytes && r.Width == img.Width && r.Height == img.Height
}
