package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"image"
	_ "image/gif" // formats of sources
	"image/jpeg"
	"image/png"

	_ "golang.org/x/image/webp"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// One pixel each, in the formats that the standard library cannot write.
var (
	//go:embed pixel.webp
	pixelWebP []byte
	//go:embed pixel.avif
	pixelAVIF []byte
)

// answer returns the outputs that spec requests, of one pixel each. Only the source's header is read.
func answer(source []byte, spec pipeline.Spec) (media.Rendered, error) {
	head, format, err := image.DecodeConfig(bytes.NewReader(source))
	if err != nil {
		return media.Rendered{}, media.Fail(media.UnsupportedFormat, "codecstub does not know this format", err)
	}
	pixels, err := onePixel()
	if err != nil {
		return media.Rendered{}, err
	}
	rendered := media.Rendered{Format: pipeline.Format(format), Width: head.Width, Height: head.Height}
	name, defaultFormat := spec.DefaultOutput()
	for _, r := range spec.Renditions {
		for _, o := range r.Formats {
			rendered.Files = append(rendered.Files, media.EncodedFile{
				Name: r.Name, Format: o.Format, Width: 1, Height: 1, Body: pixels[o.Format],
				Default: r.Name == name && o.Format == defaultFormat,
			})
		}
	}
	return rendered, nil
}

// onePixel returns a grey pixel in every format of a pipeline.
func onePixel() (map[pipeline.Format][]byte, error) {
	grey := image.NewGray(image.Rect(0, 0, 1, 1))
	grey.Pix[0] = 128
	var asJPEG, asPNG bytes.Buffer
	if err := jpeg.Encode(&asJPEG, grey, nil); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if err := png.Encode(&asPNG, grey); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return map[pipeline.Format][]byte{
		pipeline.JPEG: asJPEG.Bytes(), pipeline.PNG: asPNG.Bytes(), pipeline.WebP: pixelWebP, pipeline.AVIF: pixelAVIF,
	}, nil
}
