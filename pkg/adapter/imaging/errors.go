package imaging

import (
	"errors"
	"strings"

	"vitrine.io/pkg/foundation/media"
)

// decodeFailures maps error texts of libvips and its loaders to a code; the first match counts. A text that is not listed
// means that the source is damaged.
var decodeFailures = []struct {
	text   string // lower case
	code   media.Code
	detail string
}{
	// Sizes beyond the limits of a format, which the readers of GIF and HEIF report as failed allocations.
	{"bad image dimensions", media.Corrupt, "the image is truncated or damaged"},
	{"exceeds the maximum image size", media.TooManyPixels, "the image is longer or wider than its decoder allows"},
	{"security limit", media.Corrupt, "the image is truncated or damaged"},
	{"out of memory", media.CodecCrashed, "the image needs more memory than the codec may use"},
	{"unable to allocate", media.CodecCrashed, "the image needs more memory than the codec may use"},
	{"memory allocation", media.CodecCrashed, "the image needs more memory than the codec may use"},
	{"insufficient memory", media.CodecCrashed, "the image needs more memory than the codec may use"},
	{"operation is blocked", media.UnsupportedFormat, "this kind of image is not supported"},
	{"not a known", media.UnsupportedFormat, "this kind of image is not supported"},
	{"unsupported", media.UnsupportedFormat, "this kind of image is not supported"},
}

// decodeFailure returns the Failure for an error of libvips about a source.
func decodeFailure(err error) *media.Failure {
	err = withoutStack(err)
	text := strings.ToLower(err.Error())
	for _, f := range decodeFailures {
		if strings.Contains(text, f.text) {
			return media.Fail(f.code, f.detail, err)
		}
	}
	return media.Fail(media.Corrupt, "the image is truncated or damaged", err)
}

// reportsMissingData reports whether libjpeg had to invent pixels. libvips is configured to fail on warnings of libjpeg, but
// checks for them before it reads rows, not after the last ones.
func reportsMissingData(warnings string) bool {
	text := strings.ToLower(warnings)
	return strings.Contains(text, "premature end of") || strings.Contains(text, "bad huffman code")
}

// encodeFailure returns the Failure for an error while an output is rendered. Its code blames the codec and not the
// source, because the source was decoded; a retry in a new process may succeed.
func encodeFailure(err error) *media.Failure {
	return media.Fail(media.CodecCrashed, "the codec could not render the image", withoutStack(err))
}

// withoutStack removes the Go stack that govips appends to the text of every error.
func withoutStack(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\nStack:\n")
	return errors.New(strings.TrimSpace(text))
}
