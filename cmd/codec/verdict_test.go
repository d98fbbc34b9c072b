package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"slices"
	"strings"

	"golang.org/x/image/webp"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// independent decodes a source with the decoders of Go, which share no code with libvips and its libraries and are strict.
// known is false if they do not support the format.
func independent(format pipeline.Format, source []byte) (img image.Image, known bool, err error) {
	r := bytes.NewReader(source)
	switch format {
	case pipeline.JPEG:
		img, err = jpeg.Decode(r)
	case pipeline.PNG:
		img, err = png.Decode(r)
	case pipeline.GIF:
		img, err = gif.Decode(r) // the first frame
	case pipeline.WebP:
		if still := firstFrame(source); still != nil {
			r = bytes.NewReader(still)
		}
		img, err = webp.Decode(r)
	default:
		return nil, false, nil
	}
	if err != nil && strings.Contains(err.Error(), "unsupported") || errors.Is(err, errors.ErrUnsupported) {
		return nil, false, nil
	}
	return img, true, err
}

// firstFrame returns the first frame of an animated WebP as a WebP of its own, as Go's decoder knows it, nil if there is
// none.
func firstFrame(source []byte) []byte {
	const animation = 0x02 // in the flags of the extended header
	at := bytes.Index(source, []byte("ANMF"))
	if at < 0 || at+24 > len(source) || string(source[12:16]) != "VP8X" || source[20]&animation == 0 {
		return nil
	}
	n := int64(binary.LittleEndian.Uint32(source[at+4:]))
	frame := source[at+24 : min(int64(at)+8+max(n, 16), int64(len(source)))]
	head := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(frame)))
	return slices.Concat(head, []byte("WEBP"), frame)
}

// endsEarly reports whether a decoder of Go ran out of data before it had all pixels.
func endsEarly(err error) bool {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return true
	}
	for _, text := range []string{
		"unexpected EOF", "not enough", "short Huffman data", "missing 0xff00 sequence", "too little", "short",
	} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// gridSide is the number of cells of a grid in each direction.
const gridSide = 16

// grid is the brightness of an image on white, averaged over cells.
type grid [gridSide][gridSide]float64

func gridOf(img image.Image) (g grid) {
	flat := image.NewRGBA(img.Bounds())
	draw.Draw(flat, flat.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(flat, flat.Rect, img, img.Bounds().Min, draw.Over)
	w, h := flat.Rect.Dx(), flat.Rect.Dy()
	for j := range gridSide {
		for i := range gridSide {
			x0, x1, y0, y1 := i*w/gridSide, max((i+1)*w/gridSide, i*w/gridSide+1), j*h/gridSide, max((j+1)*h/gridSide, j*h/gridSide+1)
			sum := 0.0
			for y := y0; y < y1; y++ {
				for x := x0; x < x1; x++ {
					c := color.GrayModel.Convert(flat.At(flat.Rect.Min.X+x, flat.Rect.Min.Y+y)).(color.Gray)
					sum += float64(c.Y)
				}
			}
			g[j][i] = sum / float64((x1-x0)*(y1-y0))
		}
	}
	return g
}

// turned returns the grid in one of the eight orientations of Exif.
func (g grid) turned(how int) (out grid) {
	const last = gridSide - 1
	for j := range gridSide {
		for i := range gridSide {
			x, y := i, j
			if how&1 != 0 {
				x = last - x
			}
			if how&2 != 0 {
				y = last - y
			}
			if how&4 != 0 {
				x, y = y, x
			}
			out[j][i] = g[y][x]
		}
	}
	return out
}

// likeness is the correlation of two grids: 1 for the same image in any colours, 0 for another image. Flat grids are alike.
func likeness(a, b grid) float64 {
	var n, sa, sb, saa, sbb, sab float64
	for j := range gridSide {
		for i := range gridSide {
			x, y := a[j][i], b[j][i]
			n, sa, sb, saa, sbb, sab = n+1, sa+x, sb+y, saa+x*x, sbb+y*y, sab+x*y
		}
	}
	va, vb := saa-sa*sa/n, sbb-sb*sb/n
	const still = 2 * 2 * gridSide * gridSide // a deviation of 2 of 255
	if va < still && vb < still {
		return 1
	}
	return (sab - sa*sb/n) / math.Sqrt(max(va, 1)*max(vb, 1))
}

// flatShare returns the share, 0 to 1, of rows at the bottom that have one colour: what a decoder leaves after the end of
// the data.
func flatShare(img image.Image) float64 {
	b := img.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(img.At(x, y)).(color.RGBA) }
	base := at(b.Min.X+b.Dx()/2, b.Max.Y-1)
	differs := func(c color.RGBA) bool {
		off := func(x, y uint8) bool { return max(x, y)-min(x, y) > 6 }
		return off(c.R, base.R) || off(c.G, base.G) || off(c.B, base.B)
	}
	for rows := range b.Dy() {
		for x := b.Min.X; x < b.Max.X; x++ {
			if differs(at(x, b.Max.Y-1-rows)) {
				return float64(rows) / float64(b.Dy())
			}
		}
	}
	return 1
}

// wrongSuccess returns what is wrong with an image that the codec rendered from a mutant, or "". good is the grid of the
// seed.
func wrongSuccess(m mutant, good grid, format pipeline.Format, spec pipeline.Spec, rendered media.Rendered) string {
	shown, why := soundOutputs(spec, rendered)
	if why != "" {
		return why
	}
	if m.cut {
		return "the source is cut"
	}
	if rendered.Format != format {
		return fmt.Sprintf("the source is reported as %s", rendered.Format)
	}
	theirs, known, err := independent(format, m.body)
	flat, alike := flatShare(shown), likeness(gridOf(shown), good)
	switch {
	case known && err == nil:
		return differs(m, rendered, shown, theirs)
	// libwebp decodes a few missing bits at the end as zeros, which damage before them can cause.
	case known && endsEarly(err) && (format != pipeline.WebP || m.order || flat > someFlat):
		return fmt.Sprintf("Go's decoder ran out of data: %v", err)
	case !known && m.order && alike < 0.8:
		return fmt.Sprintf("it shows another image than its seed (likeness %.2f)", alike)
	case m.order && flat > someFlat:
		return fmt.Sprintf("%.0f %% of it is flat, Go reports %v", 100*flat, err)
	}
	return ""
}

// someFlat is the tolerated share of flat rows at the bottom: the seeds have none.
const someFlat = 1.0 / 12

// soundOutputs decodes the outputs and returns one. why is not empty if a format or size is not as reported or does not
// follow from the source's size.
func soundOutputs(spec pipeline.Spec, rendered media.Rendered) (shown image.Image, why string) {
	for _, o := range rendered.Files {
		img, format, err := image.Decode(bytes.NewReader(o.Body))
		if err != nil || format != string(o.Format) || img.Bounds().Size() != image.Pt(o.Width, o.Height) {
			return nil, fmt.Sprintf("%s as %s of %d x %d decodes to a %s, %v", o.Name, o.Format, o.Width, o.Height, format, err)
		}
		k := min(1, float64(spec.Renditions[0].Width)/float64(rendered.Width))
		w, h := float64(rendered.Width)*k, float64(rendered.Height)*k
		if o.Height < 16383 && (math.Abs(w-float64(o.Width)) > 1 || math.Abs(h-float64(o.Height)) > 1) {
			return nil, fmt.Sprintf("%s of %d x %d is rendered from %d x %d",
				o.Name, o.Width, o.Height, rendered.Width, rendered.Height)
		}
		shown = img
	}
	pixels := int64(rendered.Width) * int64(rendered.Height)
	if pixels > spec.Limits.MaxPixels || rendered.Width < 1 || rendered.Height < 1 {
		return nil, fmt.Sprintf("a source of %d x %d was accepted", rendered.Width, rendered.Height)
	}
	if shown == nil {
		return nil, "there is no output"
	}
	return shown, ""
}

// differs compares the image with what Go decodes from the same bytes. Colours and orientation are not compared, because
// Go applies neither profiles nor Exif.
func differs(m mutant, rendered media.Rendered, shown, theirs image.Image) string {
	size := theirs.Bounds().Size()
	canvas, _, err := image.DecodeConfig(bytes.NewReader(m.body))
	if err != nil || (rendered.Animated || rendered.Format == pipeline.GIF) && size != image.Pt(canvas.Width, canvas.Height) {
		return "" // the first frame is a part of the image, and Go shows the part
	}
	if size != image.Pt(rendered.Width, rendered.Height) && size != image.Pt(rendered.Height, rendered.Width) {
		return fmt.Sprintf("it is reported as %d x %d, Go decodes %v", rendered.Width, rendered.Height, size)
	}
	actual, other, best := gridOf(shown), gridOf(theirs), -1.0
	for how := range 8 {
		best = max(best, likeness(actual, other.turned(how)))
	}
	if rendered.Format == pipeline.JPEG { // values out of range after damage are clipped differently by each decoder
		if share := flatShare(shown); share > someFlat && flatShare(theirs) < share/2 {
			return fmt.Sprintf("%.0f %% of it is flat, and not of what Go decodes", 100*share)
		}
		return ""
	}
	if best < 0.8 {
		return fmt.Sprintf("Go decodes another image (likeness %.2f)", best)
	}
	return ""
}
