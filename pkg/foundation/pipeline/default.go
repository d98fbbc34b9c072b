package pipeline

import "time"

// white is what a rendition is put on where its source is transparent or too small for its frame.
const white = "#ffffff"

// Default returns the pipeline that is used when none is given. k8s/imagepipeline.yaml is the same as a document.
func Default() Pipeline {
	pair := func(marked bool) []Output {
		return []Output{
			{Format: WebP, Quality: DefaultQuality(WebP)},
			{Format: JPEG, Quality: DefaultQuality(JPEG), Default: marked},
		}
	}
	return Pipeline{
		APIVersion: APIVersion,
		Kind:       Kind,
		Metadata:   Metadata{Name: "default"},
		Spec: Spec{
			Renditions: []Rendition{
				{Name: "thumb", Width: 320, Fit: Inside, Background: white, Formats: pair(false)},
				{Name: "card", Width: 800, Fit: Inside, Background: white, Formats: pair(false)},
				{Name: "full", Width: 1600, Fit: Inside, Background: white, Formats: pair(true)},
			},
			Accept: defaultAccept(),
			Limits: defaultLimits(),
			Fetch:  defaultFetch(),
			Retry:  defaultRetry(),
		},
	}
}

// DefaultQuality returns imgproxy's default for a format, chosen over years for pictures that people take for good: typical
// photographs then have a SSIMULACRA2 score of 80 as JPEG and of about 75 as WebP and AVIF. PNG is lossless: 0.
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

func defaultLimits() Limits {
	return Limits{MaxBytes: 25 << 20, MaxPixels: 50_000_000, Deadline: Duration(30 * time.Second)}
}

func defaultFetch() Fetch {
	return Fetch{
		ConnectTimeout: Duration(5 * time.Second),
		HeaderTimeout:  Duration(10 * time.Second),
		Timeout:        Duration(30 * time.Second),
		MaxRedirects:   5,
		PerHost:        4,
		AllowCIDRs:     []string{},
		AllowPorts:     []int{80, 443},
	}
}

func defaultRetry() Retry {
	return Retry{
		MaxAttempts: 5,
		Backoff:     Duration(5 * time.Second),
		MaxBackoff:  Duration(10 * time.Minute),
		MaxAge:      Duration(24 * time.Hour),
	}
}
