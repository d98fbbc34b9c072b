package pipeline

import (
	"time"
)

// APIVersion and Kind are what an ImagePipeline document must say of itself.
const (
	APIVersion = "vitrine.io/v1alpha1"
	Kind       = "ImagePipeline"
)

// Pipeline is the ImagePipeline resource. Get one from Parse or Default: both fill in every default.
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

// Spec is what the pipeline does.
type Spec struct {
	Renditions []Rendition `json:"renditions"` // 1 to 32, unique names
	Accept     []Format    `json:"accept"`     // source formats, by magic bytes
	Limits     Limits      `json:"limits"`
	Fetch      Fetch       `json:"fetch"`
	Retry      Retry       `json:"retry"`
}

// Format is a picture format.
type Format string

// The formats. HEIC and GIF are only read.
const (
	JPEG Format = "jpeg"
	PNG  Format = "png"
	WebP Format = "webp"
	GIF  Format = "gif"
	AVIF Format = "avif"
	HEIC Format = "heic"
)

// ContentType returns the format's media type, as an object's Content-Type header gives it.
func (f Format) ContentType() string { return "image/" + string(f) }

// Extension returns the format's file name ending without a dot.
func (f Format) Extension() string {
	if f == JPEG {
		return "jpg"
	}
	return string(f)
}

// Fit says what happens when the source's shape is not the rendition's.
type Fit string

// The fits. Cover and contain need a height.
const (
	Inside  Fit = "inside"  // within width x height, shape kept, never enlarged
	Cover   Fit = "cover"   // exactly width x height, the middle kept
	Contain Fit = "contain" // exactly width x height, the rest filled with Background
)

// Rendition is one size of a picture in one or more formats.
type Rendition struct {
	Name       string   `json:"name"`
	Width      int      `json:"width"`                // pixels
	Height     int      `json:"height,omitempty"`     // pixels; 0: follows from the width
	Fit        Fit      `json:"fit,omitempty"`        // default inside
	Background string   `json:"background,omitempty"` // #rrggbb; default #ffffff
	Formats    []Output `json:"formats"`              // 1 or more, each format once
}

// Output is one encoding of a rendition: at a fixed quality, or at a target.
type Output struct {
	Format  Format  `json:"format"`
	Quality int     `json:"quality,omitempty"` // 1 to 100; default 80 JPEG, 79 WebP, 63 AVIF; PNG has none
	Target  *Target `json:"target,omitempty"`
	Default bool    `json:"default,omitempty"` // at most one: the one in compressed_product_images
}

// Target asks for the smallest file that reaches a SSIMULACRA2 score.
type Target struct {
	Ssimulacra2 float64 `json:"ssimulacra2"` // 70 is high quality, 90 visually lossless (github.com/cloudinary/ssimulacra2)
	Min         int     `json:"min"`         // lowest quality tried
	Max         int     `json:"max"`         // highest quality tried
}

// Limits bounds what one picture may cost.
type Limits struct {
	MaxBytes  Bytes    `json:"maxBytes"`  // of the source, decoded from any transfer encoding
	MaxPixels int64    `json:"maxPixels"` // frames x width x height, from the header
	Deadline  Duration `json:"deadline"`  // of one picture in the codec; then it is killed
}

// Fetch says how sources are downloaded.
type Fetch struct {
	ConnectTimeout Duration `json:"connectTimeout"`
	HeaderTimeout  Duration `json:"headerTimeout"`
	Timeout        Duration `json:"timeout"` // of the whole download
	MaxRedirects   int      `json:"maxRedirects"`
	PerHost        int      `json:"perHost"`    // downloads at a time from one host, per worker
	AllowCIDRs     []string `json:"allowCIDRs"` // otherwise forbidden addresses that may be reached, on every port
	AllowPorts     []int    `json:"allowPorts"`
}

// Retry says how often and how fast a picture is tried again.
type Retry struct {
	MaxAttempts int      `json:"maxAttempts"`
	Backoff     Duration `json:"backoff"`    // doubles, with full jitter
	MaxBackoff  Duration `json:"maxBackoff"` //
	MaxAge      Duration `json:"maxAge"`     // of a request: how long faults of our own may postpone it
}

// Duration is a time.Duration written as Go writes it: "30s", "10m".
type Duration time.Duration

// D returns the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Bytes is a number of bytes, written as a number or with a binary suffix: "25Mi".
type Bytes int64
