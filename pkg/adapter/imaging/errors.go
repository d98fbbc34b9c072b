package imaging

import (
	"errors"
	"strings"

	"vitrine.io/pkg/foundation/media"
)

// decodeFailures maps what libvips and its loaders say to a code, first match first. Whatever is not here means that the
// bytes are damaged.
var decodeFailures = []struct {
	text   string // lower case
	code   media.Code
	detail string
}{
	// Sizes out of all bounds, which GIF's and HEIF's readers tell in words of memory.
	{"bad image dimensions", media.Corrupt, "the picture is truncated or damaged"},
	{"exceeds the maximum image size", media.TooManyPixels, "the picture is longer or wider than its decoder allows"},
	{"security limit", media.Corrupt, "the picture is truncated or damaged"},
	{"out of memory", media.CodecCrashed, "the picture needs more memory than the codec may use"},
	{"unable to allocate", media.CodecCrashed, "the picture needs more memory than the codec may use"},
	{"memory allocation", media.CodecCrashed, "the picture needs more memory than the codec may use"},
	{"insufficient memory", media.CodecCrashed, "the picture needs more memory than the codec may use"},
	{"operation is blocked", media.UnsupportedFormat, "this kind of picture is not supported"},
	{"not a known", media.UnsupportedFormat, "this kind of picture is not supported"},
	{"unsupported", media.UnsupportedFormat, "this kind of picture is not supported"},
}

// decodeFailure turns an error of libvips' about a source into a Failure.
func decodeFailure(err error) *media.Failure {
	err = withoutStack(err)
	text := strings.ToLower(err.Error())
	for _, f := range decodeFailures {
		if strings.Contains(text, f.text) {
			return media.Fail(f.code, f.detail, err)
		}
	}
	return media.Fail(media.Corrupt, "the picture is truncated or damaged", err)
}

// reportsMissingData reports whether libjpeg had to invent pixels. libvips is told to fail on its warnings, but looks for them
// before it reads some rows, never after the last ones.
func reportsMissingData(said string) bool {
	text := strings.ToLower(said)
	return strings.Contains(text, "premature end of") || strings.Contains(text, "bad huffman code")
}

// encodeFailure turns an error in making a result into a Failure: the source was read, so this is the codec's trouble, and
// worth another try in a fresh process.
func encodeFailure(err error) *media.Failure {
	return media.Fail(media.CodecCrashed, "the codec could not make a rendition", withoutStack(err))
}

// withoutStack takes the Go stack out of an error of govips': it appends one to the text of every error.
func withoutStack(err error) error {
	text, _, _ := strings.Cut(err.Error(), "\nStack:\n")
	return errors.New(strings.TrimSpace(text))
}
