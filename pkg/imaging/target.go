package imaging

import (
	"fmt"
	"math"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/pipeline"
	"vitrine.io/pkg/ssimulacra2"
)

// encoding is a picture as a file, and how well that stands in for it.
type encoding struct {
	body    []byte
	quality int
	score   float64 // SSIMULACRA2; 0: not measured
	lowered int     // quality, if it was lowered for the sake of bytes
}

const (
	mostTries = 5   // encodings that a search looks at before it takes the best of them; two or three are usual
	near      = 0.5 // above the target by no more than this is near enough: less than anybody sees
	steepness = 0.9 // about how much score a step of quality brings, until two tries tell
)

// search looks for the lowest quality that reaches a score, from guess on: where the line through what it knows crosses the
// target. A score that no quality up to the highest reaches gives the highest.
func search(target pipeline.Target, guess int, try func(quality int) (encoding, error)) (encoding, error) {
	low, high := target.Min-1, target.Max+1 // too low for sure, and high enough
	var best, last encoding
	quality, steep := min(max(guess, target.Min), target.Max), steepness
	for n := 0; n < mostTries && low+1 < high; n++ {
		this, err := try(quality)
		if err != nil {
			return encoding{}, err
		}
		if n > 0 {
			if s := (this.score - last.score) / float64(this.quality-last.quality); s > 0.1 { // else noise, or a plateau
				steep = s
			}
		}
		last = this
		if this.score < target.Ssimulacra2 {
			low = quality
		} else {
			best, high = this, quality
			if this.score-target.Ssimulacra2 <= near {
				break
			}
		}
		quality += int(math.Ceil((target.Ssimulacra2 - this.score) / steep))
		quality = min(max(quality, low+1), high-1)
	}
	switch {
	case best.body != nil:
		return best, nil
	case last.quality == target.Max:
		return last, nil
	default:
		return try(target.Max)
	}
}

// judge tells how well files stand in for a picture.
type judge struct{ reference *ssimulacra2.Reference }

// newJudge returns the judge of a picture in memory. What is transparent is seen on white. nil if it is too small to judge.
func newJudge(img *vips.ImageRef) (*judge, error) {
	seen, err := opaque(img)
	if err != nil || seen.Width < ssimulacra2.MinSide || seen.Height < ssimulacra2.MinSide {
		return nil, err
	}
	reference, err := ssimulacra2.NewReference(seen)
	if err != nil {
		return nil, err
	}
	return &judge{reference}, nil
}

// score decodes a file and compares it.
func (j *judge) score(body []byte) (float64, error) {
	img, err := vips.LoadImageFromBuffer(body, vips.NewImportParams())
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	defer img.Close()
	seen, err := opaque(img)
	if err != nil {
		return 0, fmt.Errorf("read back: %w", err)
	}
	score, err := j.reference.Score(seen)
	return math.Round(100*score) / 100, err
}

// opaque returns a picture's pixels as they are seen on white.
func opaque(img *vips.ImageRef) (ssimulacra2.Picture, error) {
	flat, err := img.Copy()
	if err != nil {
		return ssimulacra2.Picture{}, err
	}
	defer flat.Close()
	if flat.HasAlpha() {
		if err := flat.Flatten(&vips.Color{R: 255, G: 255, B: 255}); err != nil {
			return ssimulacra2.Picture{}, err
		}
	}
	if err := flat.ToColorSpace(vips.InterpretationSRGB); err != nil { // a file may have come out grey
		return ssimulacra2.Picture{}, err
	}
	pixels, err := flat.ToBytes()
	return ssimulacra2.Picture{Width: flat.Width(), Height: flat.Height(), RGB: pixels}, err
}
