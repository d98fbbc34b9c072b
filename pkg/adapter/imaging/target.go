package imaging

import (
	"fmt"
	"math"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/ssimulacra2"
)

// encoding is an encoded file, with its quality and its score.
type encoding struct {
	body    []byte
	quality int
	score   float64 // SSIMULACRA2, 0 to 100; 0: not measured
	lowered int     // quality, if it was lowered to save bytes; 0: it was not
}

const (
	maxTries  = 5   // encodings per search; two or three are usual
	tolerance = 1.0 // score above the target that ends a search; it is about 2 % of a file's size
)

// typicalScores are the scores of photographs at qualities from typicalFrom on, in steps of typicalStep: medians of ten
// photographs at widths of 320 and 800 pixels (measured). The curve of one image lies above or below and has a similar
// shape.
var typicalScores = map[pipeline.Format]curve{
	pipeline.JPEG: {53.2, 61.1, 66.8, 70.4, 74.9, 80.0, 85.0},
	pipeline.WebP: {54.2, 60.1, 64.8, 67.6, 70.5, 76.2, 83.2},
	pipeline.AVIF: {39.1, 53.0, 64.0, 73.8, 78.8, 82.8, 91.0},
}

const (
	typicalFrom = 30
	typicalStep = 10
)

// curve is a score that grows with the quality, linear between its points and beyond them.
type curve []float64

// score returns the score of the curve at a quality.
func (c curve) score(quality int) float64 {
	i := min(max((quality-typicalFrom)/typicalStep, 0), len(c)-2)
	return c[i] + (c[i+1]-c[i])*float64(quality-typicalFrom-i*typicalStep)/typicalStep
}

// quality returns the quality at which the curve has a score.
func (c curve) quality(score float64) float64 {
	i := 0
	for i < len(c)-2 && score > c[i+1] {
		i++
	}
	return float64(typicalFrom+i*typicalStep) + typicalStep*(score-c[i])/(c[i+1]-c[i])
}

// search returns the encoding with the lowest quality that reaches the target score. The first try is the quality that
// the typical curve, raised by offset, has for the score. Later tries use the curve, moved so that it contains the last
// result. As soon as a quality below and one above the target are known, they use the line between these two. If no
// quality reaches the score, the result has the highest quality of the target.
func search(target pipeline.Target, c curve, offset float64, try func(quality int) (encoding, error)) (encoding, error) {
	low, high := encoding{quality: target.Min - 1}, encoding{quality: target.Max + 1} // the bounds of the search, not encoded
	aim := target.Ssimulacra2 + tolerance/2
	next := c.quality(aim - offset)
	var last encoding
	for n := 0; n < maxTries && low.quality+1 < high.quality; n++ {
		quality := int(math.Round(min(max(next, float64(low.quality+1)), float64(high.quality-1))))
		this, err := try(quality)
		if err != nil {
			return encoding{}, err
		}
		last = this
		if this.score < target.Ssimulacra2 {
			low = this
		} else {
			high = this
			if this.score-target.Ssimulacra2 <= tolerance {
				break
			}
		}
		if low.body != nil && high.body != nil && high.score > low.score {
			next = float64(low.quality) + float64(high.quality-low.quality)*(aim-low.score)/(high.score-low.score)
		} else {
			next = c.quality(aim - (this.score - c.score(quality)))
		}
	}
	switch {
	case high.body != nil:
		return high, nil
	case last.quality == target.Max:
		return last, nil
	default:
		return try(target.Max)
	}
}

// newReference returns the reference to score files that are encoded from an image in memory, nil if the image is too small
// for the metric. Transparent pixels are compared on white.
func newReference(img *vips.ImageRef) (*ssimulacra2.Reference, error) {
	pixels, err := opaquePixels(img)
	if err != nil || pixels.Width < ssimulacra2.MinSide || pixels.Height < ssimulacra2.MinSide {
		return nil, err
	}
	return ssimulacra2.NewReference(pixels)
}

// score decodes a file and returns its SSIMULACRA2 score, rounded to hundredths.
func score(reference *ssimulacra2.Reference, body []byte) (float64, error) {
	img, err := vips.LoadImageFromBuffer(body, vips.NewImportParams())
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	defer img.Close()
	pixels, err := opaquePixels(img)
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	score, err := reference.Score(pixels)
	return math.Round(100*score) / 100, err
}

// opaquePixels returns the pixels of an image on a white background.
func opaquePixels(img *vips.ImageRef) (ssimulacra2.Image, error) {
	flat, err := img.Copy()
	if err != nil {
		return ssimulacra2.Image{}, err
	}
	defer flat.Close()
	if flat.HasAlpha() {
		if err := flat.Flatten(&vips.Color{R: 255, G: 255, B: 255}); err != nil {
			return ssimulacra2.Image{}, err
		}
	}
	if err := flat.ToColorSpace(vips.InterpretationSRGB); err != nil { // a decoded file may be grey
		return ssimulacra2.Image{}, err
	}
	pixels, err := flat.ToBytes()
	return ssimulacra2.Image{Width: flat.Width(), Height: flat.Height(), RGB: pixels}, err
}
