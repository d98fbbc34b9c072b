package imaging_test

import (
	"bytes"
	"image"
	_ "image/gif"  // decoders for comparison
	_ "image/jpeg" // the same
	_ "image/png"  // the same
	"testing"

	"github.com/davidbyttow/govips/v2/vips"
	_ "golang.org/x/image/webp" // the same

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// FuzzHeader checks the steps before decoding with any bytes. An accepted source is complete, of an accepted format and
// within its limit of pixels. Other sources fail with one of three codes, and no image stays open. If Go's decoders read a
// size in the same bytes, it is the size that was checked: the check and the decoder must not read different headers.
func FuzzHeader(f *testing.F) {
	const maxPixels = 1 << 20
	for _, body := range varieties(f) {
		f.Add(body)
		f.Add(body[:len(body)*2/3])
	}
	f.Add(bomb(1<<31-1, 1<<31-1))
	accept := pipeline.Default().Spec.Accept
	f.Fuzz(func(t *testing.T, body []byte) {
		vipsLock.Lock()
		defer vipsLock.Unlock()
		got, err := imaging.Header(body, accept, maxPixels)
		if n := vips.OpenImageRefs(); n != 0 {
			t.Errorf("%d images are open", n)
		}
		if err != nil {
			switch code := media.FailureOf(err).Code; code {
			case media.Corrupt, media.UnsupportedFormat, media.TooManyPixels:
			default:
				t.Errorf("header fails with %s: %v", code, err)
			}
			return
		}
		if got.Width < 1 || got.Height < 1 || int64(got.Width)*int64(got.Height) > maxPixels {
			t.Errorf("a header of %d x %d is accepted", got.Width, got.Height)
		}
		if !imaging.Complete(got.Format, body) {
			t.Error("a source is accepted that is not complete")
		}
		theirs, format, err := image.DecodeConfig(bytes.NewReader(body))
		if err != nil {
			return
		}
		rotated := got.Width == theirs.Height && got.Height == theirs.Width
		if format != string(got.Format) || !rotated && (got.Width != theirs.Width || got.Height != theirs.Height) {
			t.Errorf("%s of %d x %d was checked, Go reads a %s of %d x %d",
				got.Format, got.Width, got.Height, format, theirs.Width, theirs.Height)
		}
	})
}

func TestHeader(t *testing.T) {
	t.Parallel()
	accept := pipeline.Default().Spec.Accept
	frames := map[string]int64{"animated.webp": 2, "animated.gif": 3}
	for name, body := range varieties(t) {
		pixels := max(1, frames[name]) * 128 * 96
		vipsLock.Lock()
		_, exact := imaging.Header(body, accept, pixels)
		_, over := imaging.Header(body, accept, pixels-1)
		vipsLock.Unlock()
		if exact != nil {
			t.Errorf("%s: %d pixels of %d: %v", name, pixels, pixels, exact)
		}
		if failure := media.FailureOf(over); failure == nil || failure.Code != media.TooManyPixels {
			t.Errorf("%s: one pixel too many: %v", name, over)
		}
	}
}
