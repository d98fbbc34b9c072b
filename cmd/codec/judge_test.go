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

// independent decodes a source with Go's own decoders, which share no line of code with libvips and its libraries, and which
// are strict. known is false for what they do not know.
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

// endsEarly reports whether a decoder of Go's ran out of data before it had all pixels.
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

// grid is the brightness of an image in so many fields each way, as it looks on white.
const gridSide = 16

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

// turned returns the grid after one of the eight turns that Exif knows.
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

// likeness is the correlation of two grids: 1 is the same image in whatever colours, 0 another one. Flat grids are alike.
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

// flatShare is how much of an image, 0 to 1, is rows at its bottom that all have one colour: what a decoder leaves that
// went on without data.
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

// wrongSuccess says what is wrong with an image that the codec made of a mutant, or "". good is how its seed looks.
func wrongSuccess(m mutant, good grid, format pipeline.Format, spec pipeline.Spec, made media.Rendered) string {
	shown, why := soundOutputs(spec, made)
	if why != "" {
		return why
	}
	if m.cut {
		return "the source is cut"
	}
	if made.Format != format {
		return fmt.Sprintf("the source is told as %s", made.Format)
	}
	theirs, known, err := independent(format, m.body)
	flat, alike := flatShare(shown), likeness(gridOf(shown), good)
	switch {
	case known && err == nil:
		return differs(m, made, shown, theirs)
	// libwebp takes the last pixels' bits for zeros where a few are missing, which damage before them can bring about.
	case known && endsEarly(err) && (format != pipeline.WebP || m.order || flat > someFlat):
		return fmt.Sprintf("Go's decoder ran out of data: %v", err)
	case !known && m.order && alike < 0.8:
		return fmt.Sprintf("it does not show what it showed (likeness %.2f)", alike)
	case m.order && flat > someFlat:
		return fmt.Sprintf("%.0f %% of it is flat, Go says %v", 100*flat, err)
	}
	return ""
}

// someFlat is how much of an image's bottom may be flat: the files that we start from have nothing that is.
const someFlat = 1.0 / 12

// soundOutputs decodes the outputs, which must be what is told of them and follow from the source's size, and returns one.
func soundOutputs(spec pipeline.Spec, made media.Rendered) (shown image.Image, why string) {
	for _, o := range made.Files {
		img, format, err := image.Decode(bytes.NewReader(o.Body))
		if err != nil || format != string(o.Format) || img.Bounds().Size() != image.Pt(o.Width, o.Height) {
			return nil, fmt.Sprintf("%s as %s of %d x %d decodes to a %s, %v", o.Name, o.Format, o.Width, o.Height, format, err)
		}
		k := min(1, float64(spec.Renditions[0].Width)/float64(made.Width))
		w, h := float64(made.Width)*k, float64(made.Height)*k
		if o.Height < 16383 && (math.Abs(w-float64(o.Width)) > 1 || math.Abs(h-float64(o.Height)) > 1) {
			return nil, fmt.Sprintf("%s of %d x %d is made of %d x %d", o.Name, o.Width, o.Height, made.Width, made.Height)
		}
		shown = img
	}
	if pixels := int64(made.Width) * int64(made.Height); pixels > spec.Limits.MaxPixels || made.Width < 1 || made.Height < 1 {
		return nil, fmt.Sprintf("a source of %d x %d was accepted", made.Width, made.Height)
	}
	if shown == nil {
		return nil, "there is no output"
	}
	return shown, ""
}

// differs compares the image with what Go's decoder makes of the same bytes. Colours are not compared, since Go knows no
// profiles; nor how the image is turned, since Go knows no Exif.
func differs(m mutant, made media.Rendered, shown, theirs image.Image) string {
	size := theirs.Bounds().Size()
	canvas, _, err := image.DecodeConfig(bytes.NewReader(m.body))
	if err != nil || (made.Animated || made.Format == pipeline.GIF) && size != image.Pt(canvas.Width, canvas.Height) {
		return "" // the first frame is a part of the image, and Go shows the part
	}
	if size != image.Pt(made.Width, made.Height) && size != image.Pt(made.Height, made.Width) {
		return fmt.Sprintf("it is told as %d x %d, Go says %v", made.Width, made.Height, size)
	}
	ours, other, best := gridOf(shown), gridOf(theirs), -1.0
	for how := range 8 {
		best = max(best, likeness(ours, other.turned(how)))
	}
	if made.Format == pipeline.JPEG { // what is out of bounds after damage, each decoder cuts off as it likes
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
