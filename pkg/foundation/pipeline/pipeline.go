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

// The markers in the comments below are the schema of the custom resource, which the API server enforces. Parse refuses
// everything that the schema refuses, and more.

// Spec is the pipeline's specification.
type Spec struct {
	// The sizes of every image.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(r, self.exists_one(o, o.name == r.name))",message="the names of renditions must be unique"
	// +kubebuilder:validation:XValidation:rule="self.exists(r, r.formats.exists(f, f.format == 'jpeg' || (has(f.default) && f.default)))",message="mark one format with default: true, since none of them is jpeg"
	// +kubebuilder:validation:XValidation:rule="self.map(r, r.formats.filter(f, has(f.default) && f.default).size()).sum() <= 1",message="at most one format may be the default"
	Renditions []Rendition `json:"renditions"`
	// The accepted formats of sources, which are recognized by their first bytes. Default: all.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=6
	// +kubebuilder:validation:items:Enum=jpeg;png;webp;gif;avif;heic
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(f, self.exists_one(o, o == f))",message="a format is listed twice"
	Accept []Format `json:"accept"`
	// The limits for one image.
	//
	// +optional
	Limits Limits `json:"limits"`
	// How sources are downloaded.
	//
	// +optional
	Fetch Fetch `json:"fetch"`
	// The retries of an image.
	//
	// +optional
	Retry Retry `json:"retry"`
	// What becomes of sources.
	//
	// +optional
	Originals Originals `json:"originals,omitzero"` // left out unless set: older revisions keep their ids
	// What happens to existing images after a change. It changes no hash and no revision, and is not published to the programs.
	//
	// +optional
	Backfill Backfill `json:"backfill,omitzero"`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.fit) || self.fit == 'inside' || (has(self.height) && self.height > 0)",message="fit cover and fit contain need a height"
// +kubebuilder:validation:XValidation:rule="!self.formats.exists(f, f.format == 'avif') || (self.width >= 16 && (!has(self.height) || self.height == 0 || self.height >= 16))",message="width and height must be at least 16 for avif"
type Rendition struct {
	// The name, which is part of the URLs of images.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Name string `json:"name"`
	// The width in pixels. An image is never enlarged.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16383
	Width int `json:"width"`
	// The height in pixels; 0 (default) follows from the width.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16383
	Height int `json:"height,omitempty"`
	// How a source of another aspect ratio fills the rendition. inside (default): within width x height; cover: cropped around
	// the center; contain: padded with the background.
	//
	// +optional
	// +kubebuilder:validation:Enum=inside;cover;contain
	Fit Fit `json:"fit,omitempty"`
	// The colour of empty and transparent areas, such as #ffffff (default).
	//
	// +optional
	// +kubebuilder:validation:MaxLength=7
	// +kubebuilder:validation:Pattern=`^#[0-9a-fA-F]{6}$`
	Background string `json:"background,omitempty"`
	// The formats, each at most once.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(f, self.exists_one(o, o.format == f.format))",message="a format is listed twice"
	Formats []Output `json:"formats"`
}

// Output is one encoding of a rendition, with a fixed quality or a target score.
//
// +kubebuilder:validation:XValidation:rule="!has(self.quality) || !has(self.target)",message="quality and target exclude each other"
// +kubebuilder:validation:XValidation:rule="self.format != 'png' || (!has(self.quality) && !has(self.target))",message="png is lossless and has neither quality nor target"
type Output struct {
	// The format.
	//
	// +kubebuilder:validation:Enum=jpeg;png;webp;avif
	Format Format `json:"format"`
	// The quality. Default: 80 for jpeg, 79 for webp, 63 for avif.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Quality int `json:"quality,omitempty"`
	// The score that the file must reach, instead of a quality.
	//
	// +optional
	Target *Target `json:"target,omitempty"`
	// Marks the output that is listed in compressed_product_images. Default: the widest jpeg.
	//
	// +optional
	Default bool `json:"default,omitempty"`
}

// Target selects the smallest file with at least a SSIMULACRA2 score.
//
// +kubebuilder:validation:XValidation:rule="self.min <= self.max",message="max must not be below min"
type Target struct {
	// The score: 70 is high quality, 90 visually lossless (github.com/cloudinary/ssimulacra2).
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Ssimulacra2 float64 `json:"ssimulacra2"`
	// The lowest quality that is tried.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Min int `json:"min"`
	// The highest quality that is tried.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Max int `json:"max"`
}

// Limits are the limits for one image.
type Limits struct {
	// The maximum size of a source, decoded from any transfer encoding: 1Ki to 256Mi. Default 25Mi.
	//
	// +optional
	MaxBytes Bytes `json:"maxBytes"`
	// The maximum number of pixels of a source: frames x width x height, from its header. Default 50000000.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	MaxPixels int64 `json:"maxPixels"`
	// The time for one image in the codec, which is then killed: 1s to 10m. Default 30s.
	//
	// +optional
	Deadline Duration `json:"deadline"`
}

// Fetch configures how sources are downloaded. What a worker may reach at all is part of [Bounds].
type Fetch struct {
	// The timeout for a connection: up to 1h. Default 5s.
	//
	// +optional
	ConnectTimeout Duration `json:"connectTimeout"`
	// The timeout for the headers of a response: up to 1h. Default 10s.
	//
	// +optional
	HeaderTimeout Duration `json:"headerTimeout"`
	// The timeout for the whole download: headerTimeout to 1h. Default 30s.
	//
	// +optional
	Timeout Duration `json:"timeout"`
	// The maximum number of redirects. Default 5.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	MaxRedirects int `json:"maxRedirects"`
	// The maximum number of concurrent downloads from one host, for each worker. Default 4.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	PerHost int `json:"perHost"`
}

// Retry configures the retries of an image.
type Retry struct {
	// The number of attempts before an image fails. Default 5.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxAttempts int `json:"maxAttempts"`
	// The first wait, which doubles for each retry, with full jitter. Default 5s.
	//
	// +optional
	Backoff Duration `json:"backoff"`
	// The upper limit of the doubled wait: backoff to 720h. Default 10m.
	//
	// +optional
	MaxBackoff Duration `json:"maxBackoff"`
	// How long failures of Vitrine's own servers may defer a job: maxBackoff to 720h. Default 24h.
	//
	// +optional
	MaxAge Duration `json:"maxAge"`
}

// Backfill says when existing images are made again after a change, where the pipeline is a resource of a cluster. It is no
// part of a [Revision], of a hash or of a document.
type Backfill struct {
	// Never: no backfill is proposed. Propose (default): one is proposed, and waits for its approval. Auto: one is proposed,
	// and approved if it meets the gates.
	//
	// +optional
	// +kubebuilder:validation:Enum=Never;Propose;Auto
	Policy BackfillPolicy `json:"policy,omitempty"`
	// Approves the backfill whose target has this hash, which is the hash in the status.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	ApprovedHash string `json:"approvedHash,omitempty"`
	// What the report of a canary must meet for the policy Auto. Without a gate, none is needed.
	//
	// +optional
	Gates Gates `json:"gates,omitzero"`
	// What becomes of images whose original is not kept: Fetch (default) downloads their sources, Skip leaves them as they are.
	//
	// +optional
	OnMissing OnMissing `json:"onMissing,omitempty"`
}

// OnMissing is what becomes of an image of a backfill whose original is not kept.
//
// +kubebuilder:validation:Enum=Fetch;Skip
type OnMissing string

// The values of OnMissing.
const (
	FetchMissing OnMissing = "Fetch"
	SkipMissing  OnMissing = "Skip"
)

// BackfillPolicy is what follows from a change of a pipeline.
type BackfillPolicy string

// The policies.
const (
	Never   BackfillPolicy = "Never"
	Propose BackfillPolicy = "Propose"
	Auto    BackfillPolicy = "Auto"
)

// Gates are limits for the report of a canary. A missing one allows everything.
type Gates struct {
	// The percentage of samples that may fail.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MaxFailedPercent *float64 `json:"maxFailedPercent,omitempty"`
	// By how many percent the bytes of all renditions may grow. Below 0 they have to shrink.
	//
	// +optional
	// +kubebuilder:validation:Minimum=-100
	// +kubebuilder:validation:Maximum=10000
	MaxBytesIncreasePercent *float64 `json:"maxBytesIncreasePercent,omitempty"`
	// The lowest difference of the mean SSIMULACRA2 scores, after minus before. Below 0 they may fall.
	//
	// +optional
	// +kubebuilder:validation:Minimum=-100
	// +kubebuilder:validation:Maximum=100
	MinScoreDelta *float64 `json:"minScoreDelta,omitempty"`
}

// Originals configures what becomes of sources. It changes no image, so it is in no hash.
type Originals struct {
	// Whether the source of each image that becomes ready is kept, in a bucket of its own. Default false.
	//
	// +optional
	Keep bool `json:"keep"`
}

// Duration is a time.Duration in Go's notation: "30s", "10m".
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
type Duration time.Duration

// D converts the duration to time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Bytes is a number of bytes, written as an integer or with a suffix: "25Mi".
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:Format=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^\+?[0-9]+(Ki|Mi|Gi|k|M|G)?$`
type Bytes int64
