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

// materialise computes the pixels of img into memory, in place. Before that, an image is a lazy pipeline that reads its
// source from top to bottom. It can be used only once; a second use fails with "out of order read".
//
// govips has no function for this. Its alternative (ToGoImage, NewImageFromGoImage) copies every pixel three times, which
// reduces the throughput by a seventh (measured). vips_image_wio_input is what libvips uses itself. It needs a pointer
// that is a private field of govips, read here by name: Start checks that the field exists, and the version of govips is
// pinned.
func materialise(img *vips.ImageRef) error {
	defer runtime.KeepAlive(img)
	if C.vips_image_wio_input((*C.VipsImage)(vipsImage(img).UnsafePointer())) != 0 {
		return errors.New(takeErrors())
	}
	return nil
}

// takeErrors clears the buffer of error texts of libvips and returns what was in it. Warnings of libraries go there, too,
// and remain when the call that caused them succeeds.
func takeErrors() string {
	defer C.vips_error_clear()
	return C.GoString(C.vips_error_buffer())
}

// vipsImage returns the field of an ImageRef that holds its *C.VipsImage, or the zero Value.
func vipsImage(img *vips.ImageRef) reflect.Value {
	field := reflect.ValueOf(img).Elem().FieldByName("image")
	if field.Kind() != reflect.Pointer {
		return reflect.Value{}
	}
	return field
}
