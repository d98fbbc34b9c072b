package pipeline

import "time"

// white is the default background of a rendition, for transparent sources and for fit contain.
const white = "#ffffff"

// Default returns the pipeline for programs without a pipeline file. k8s/imagepipeline.yaml is the same pipeline.
func Default() Pipeline {
	pair := func(marked bool) []Output {
		return []Output{
			{Format: WebP, Quality: DefaultQuality(WebP)},
			{Format: JPEG, Quality: DefaultQuality(JPEG), Default: marked},
		}
	}
	spec := defaultSpec()
	spec.Renditions = []Rendition{
		{Name: "thumb", Width: 320, Fit: Inside, Background: white, Formats: pair(false)},
		{Name: "card", Width: 800, Fit: Inside, Background: white, Formats: pair(false)},
		{Name: "full", Width: 1600, Fit: Inside, Background: white, Formats: pair(true)},
	}
	return Pipeline{APIVersion: APIVersion, Kind: Kind, Metadata: Metadata{Name: "default"}, Spec: spec}
}

// DefaultQuality returns the default quality of a format, 1 to 100, which is imgproxy's default. Typical photographs then
// have a SSIMULACRA2 score of 80 as JPEG and of about 75 as WebP and AVIF. It is 0 for formats without a quality, such as
// PNG.
func DefaultQuality(f Format) int {
	switch f {
	case JPEG:
		return 80
	case WebP:
		return 79
	case AVIF:
		return 63
	default:
		return 0
	}
}

func defaultAccept() []Format { return []Format{JPEG, PNG, WebP, GIF, AVIF, HEIC} }

// defaultSpec has the defaults of everything but the renditions.
func defaultSpec() Spec {
	return Spec{
		Accept: defaultAccept(),
		Limits: Limits{MaxBytes: 25 << 20, MaxPixels: 50_000_000, Deadline: Duration(30 * time.Second)},
		Fetch: Fetch{
			ConnectTimeout: Duration(5 * time.Second),
			HeaderTimeout:  Duration(10 * time.Second),
			Timeout:        Duration(30 * time.Second),
			MaxRedirects:   5,
			PerHost:        4,
		},
		Retry: Retry{
			MaxAttempts: 5,
			Backoff:     Duration(5 * time.Second),
			MaxBackoff:  Duration(10 * time.Minute),
			MaxAge:      Duration(24 * time.Hour),
		},
		Backfill: Backfill{Policy: Propose, OnMissing: FetchMissing},
	}
}
