package imaging

// #cgo pkg-config: vips
// #include <vips/vips.h>
import "C"

import (
	"errors"
	"reflect"
	"runtime"

	"github.com/davidbyttow/govips/v2/vips"
)

// materialise computes img's pixels into memory, in place. Without it an image is a recipe that reads its source from top
// to bottom: it can be used once, and a second use fails with "out of order read".
//
// govips has no call for this, and its way round (ToGoImage, NewImageFromGoImage) copies every pixel three times, which
// costs a seventh of the throughput. vips_image_wio_input is how libvips itself turns a recipe into memory. The pointer it
// needs is a private field of govips', read by name: Start checks that it is there, and the version is pinned.
func materialise(img *vips.ImageRef) error {
	defer runtime.KeepAlive(img)
	if C.vips_image_wio_input((*C.VipsImage)(vipsImage(img).UnsafePointer())) != 0 {
		return errors.New(takeErrors())
	}
	return nil
}

// complaints empties libvips' buffer of error texts and returns what was in it. Libraries' warnings go there, too, and stay
// when the call that they were said in succeeds.
func takeErrors() string {
	defer C.vips_error_clear()
	return C.GoString(C.vips_error_buffer())
}

// pointer returns the field of an ImageRef that holds its *C.VipsImage, or the zero Value.
func vipsImage(img *vips.ImageRef) reflect.Value {
	field := reflect.ValueOf(img).Elem().FieldByName("image")
	if field.Kind() != reflect.Pointer {
		return reflect.Value{}
	}
	return field
}
