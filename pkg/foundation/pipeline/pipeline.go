package pipeline

import (
	"time"
)

// APIVersion and Kind are the required values of these fields in a document.
const (
	APIVersion = "vitrine.io/v1alpha1"
	Kind       = "ImagePipeline"
)

// Pipeline is the ImagePipeline resource. Parse and Default return pipelines with all defaults filled in.
type Pipeline struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names the resource.
type Metadata struct {
	Name string `json:"name"`
}

// Spec is the pipeline's specification.
type Spec struct {
	Renditions []Rendition `json:"renditions"` // 1 to 32, unique names
	Accept     []Format    `json:"accept"`     // source formats, recognized by magic bytes
	Limits     Limits      `json:"limits"`
	Fetch      Fetch       `json:"fetch"`
	Retry      Retry       `json:"retry"`
}

// Format is an image format.
type Format string

// The formats. HEIC and GIF are decoded but not encoded.
const (
	JPEG Format = "jpeg"
	PNG  Format = "png"
	WebP Format = "webp"
	GIF  Format = "gif"
	AVIF Format = "avif"
	HEIC Format = "heic"
)

// ContentType returns the format's media type, such as "image/jpeg".
func (f Format) ContentType() string { return "image/" + string(f) }

// Extension returns the format's file name extension, without a dot.
func (f Format) Extension() string {
	if f == JPEG {
		return "jpg"
	}
	return string(f)
}

// Fit is how a source of another aspect ratio fills a rendition.
type Fit string

// The fits. Cover and contain need a height.
const (
	Inside  Fit = "inside"  // within width x height, aspect ratio kept, never enlarged
	Cover   Fit = "cover"   // exactly width x height, cropped around the center
	Contain Fit = "contain" // exactly width x height, padded with Background
)

// Rendition is one size of an image, in one or more formats.
type Rendition struct {
	Name       string   `json:"name"`
	Width      int      `json:"width"`                // pixels
	Height     int      `json:"height,omitempty"`     // pixels; 0 follows from the width
	Fit        Fit      `json:"fit,omitempty"`        // default inside
	Background string   `json:"background,omitempty"` // #rrggbb; default #ffffff
	Formats    []Output `json:"formats"`              // 1 to 4, each format once
}

// Output is one encoding of a rendition, with a fixed quality or a target score.
type Output struct {
	Format  Format  `json:"format"`
	Quality int     `json:"quality,omitempty"` // 1 to 100; default 80 JPEG, 79 WebP, 63 AVIF; PNG has none
	Target  *Target `json:"target,omitempty"`
	Default bool    `json:"default,omitempty"` // marks the output that is listed in compressed_product_images; at most one
}

// Target selects the smallest file with at least a SSIMULACRA2 score.
type Target struct {
	Ssimulacra2 float64 `json:"ssimulacra2"` // 70 is high quality, 90 visually lossless (github.com/cloudinary/ssimulacra2)
	Min         int     `json:"min"`         // lowest quality tried
	Max         int     `json:"max"`         // highest quality tried
}

// Limits are the limits for one image.
type Limits struct {
	MaxBytes  Bytes    `json:"maxBytes"`  // of the source, decoded from any transfer encoding
	MaxPixels int64    `json:"maxPixels"` // frames x width x height, from the header
	Deadline  Duration `json:"deadline"`  // for one image in the codec, which is then killed
}

// Fetch configures how sources are downloaded.
type Fetch struct {
	ConnectTimeout Duration `json:"connectTimeout"`
	HeaderTimeout  Duration `json:"headerTimeout"`
	Timeout        Duration `json:"timeout"` // of the whole download
	MaxRedirects   int      `json:"maxRedirects"`
	PerHost        int      `json:"perHost"`    // concurrent downloads from one host, per worker
	AllowCIDRs     []string `json:"allowCIDRs"` // networks that are allowed although they are not public, on every port
	AllowPorts     []int    `json:"allowPorts"`
}

// Retry configures the retries of an image.
type Retry struct {
	MaxAttempts int      `json:"maxAttempts"`
	Backoff     Duration `json:"backoff"`    // doubles for each retry, with full jitter
	MaxBackoff  Duration `json:"maxBackoff"` // upper limit of the doubled backoff
	MaxAge      Duration `json:"maxAge"`     // of a job: how long failures of Vitrine's own servers may defer it
}

// Duration is a time.Duration in Go's notation: "30s", "10m".
type Duration time.Duration

// D converts the duration to time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Bytes is a number of bytes, written as an integer or with a suffix: "25Mi".
type Bytes int64
