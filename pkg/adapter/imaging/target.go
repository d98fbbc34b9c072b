package imaging

import (
	"fmt"
	"math"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/ssimulacra2"
)

// encoding is a picture as a file, and how well that stands in for it.
type encoding struct {
	body    []byte
	quality int
	score   float64 // SSIMULACRA2; 0: not measured
	lowered int     // quality, if it was lowered for the sake of bytes
}

const (
	maxTries  = 5   // encodings that a search looks at before it takes the best of them; two or three are usual
	tolerance = 1.0 // above the target by no more than this is near enough: two hundredths of a file's size
)

// typical are the scores of photographs at qualities from typicalFrom on, in steps of typicalStep: medians of ten at 320
// and 800 pixels. A picture's own curve lies above or below, and has about the same shape.
var typicalScores = map[pipeline.Format]curve{
	pipeline.JPEG: {53.2, 61.1, 66.8, 70.4, 74.9, 80.0, 85.0},
	pipeline.WebP: {54.2, 60.1, 64.8, 67.6, 70.5, 76.2, 83.2},
	pipeline.AVIF: {39.1, 53.0, 64.0, 73.8, 78.8, 82.8, 91.0},
}

const (
	typicalFrom = 30
	typicalStep = 10
)

// curve is a score that grows with the quality. Between its points, and beyond them, it is straight.
type curve []float64

// score returns the curve's score at a quality.
func (c curve) score(quality int) float64 {
	i := min(max((quality-typicalFrom)/typicalStep, 0), len(c)-2)
	return c[i] + (c[i+1]-c[i])*float64(quality-typicalFrom-i*typicalStep)/typicalStep
}

// quality returns where the curve has a score.
func (c curve) quality(score float64) float64 {
	i := 0
	for i < len(c)-2 && score > c[i+1] {
		i++
	}
	return float64(typicalFrom+i*typicalStep) + typicalStep*(score-c[i])/(c[i+1]-c[i])
}

// search looks for the lowest quality that reaches a score. It begins where the format's typical curve does, moved up by
// lead, and goes on along the curve moved through what it has found; once it knows a quality that is too low and one that is
// not, along the line between them. A score that no quality up to the highest reaches gives the highest.
func search(target pipeline.Target, c curve, lead float64, try func(quality int) (encoding, error)) (encoding, error) {
	low, high := encoding{quality: target.Min - 1}, encoding{quality: target.Max + 1} // too low for sure, and high enough
	aim := target.Ssimulacra2 + tolerance/2
	next := c.quality(aim - lead)
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

// judge tells how well files stand in for a picture.
type scorer struct{ reference *ssimulacra2.Reference }

// newJudge returns the judge of a picture in memory. What is transparent is seen on white. nil if it is too small to judge.
func newScorer(img *vips.ImageRef) (*scorer, error) {
	seen, err := opaquePixels(img)
	if err != nil || seen.Width < ssimulacra2.MinSide || seen.Height < ssimulacra2.MinSide {
		return nil, err
	}
	reference, err := ssimulacra2.NewReference(seen)
	if err != nil {
		return nil, err
	}
	return &scorer{reference}, nil
}

// score decodes a file and compares it.
func (j *scorer) score(body []byte) (float64, error) {
	img, err := vips.LoadImageFromBuffer(body, vips.NewImportParams())
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	defer img.Close()
	seen, err := opaquePixels(img)
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	score, err := j.reference.Score(seen)
	return math.Round(100*score) / 100, err
}

// opaque returns a picture's pixels as they are seen on white.
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
	if err := flat.ToColorSpace(vips.InterpretationSRGB); err != nil { // a file may have come out grey
		return ssimulacra2.Image{}, err
	}
	pixels, err := flat.ToBytes()
	return ssimulacra2.Image{Width: flat.Width(), Height: flat.Height(), RGB: pixels}, err
}
