package imaging

import (
	"math"
	"slices"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// original is the source's file, which outputs are compared with.
type original struct {
	format   pipeline.Format
	upright  size
	bytes    int
	lossless bool // it has lost nothing: PNG, GIF, lossless WebP
}

func newOriginal(source []byte, format pipeline.Format, upright size) original {
	return original{
		format: format, upright: upright, bytes: len(source),
		lossless: format == pipeline.PNG || format == pipeline.GIF || format == pipeline.WebP && losslessWebP(source),
	}
}

// sibling is an output among those of its rendition.
type sibling struct {
	encoding
	format    pipeline.Format
	flattened bool // has lost the source's transparency
	isDefault bool // the pipeline's default output
	oversize  bool // has as many pixels as the source, and more bytes
}

// dropReasons returns for each of a rendition's outputs why it is dropped, or "" for those that stay. The default output stays,
// and so does the smallest of those that are read most widely: a rendition is never left without a file.
func dropReasons(siblings []sibling) []media.Reason {
	order := make([]int, len(siblings))
	for i := range order {
		order[i] = i
	}
	// The most widely read first: what is compared with later ones stays for sure.
	slices.SortStableFunc(order, func(i, j int) int { return supportRank(siblings[i].format) - supportRank(siblings[j].format) })
	reasons := make([]media.Reason, len(siblings))
	for _, i := range order {
		this := siblings[i]
		for j, other := range siblings {
			switch {
			case this.isDefault || j == i || reasons[j] != "" || !other.canReplace(this):
			case this.oversize:
				reasons[i] = media.LargerThanSource
			case reasons[i] == "" && other.looksAsGoodAs(this):
				reasons[i] = media.LargerThanSibling
			}
		}
	}
	return reasons
}

// canReplace reports whether whoever is given s instead of other can read it, sees the same of what is transparent, and has no
// more to download.
func (s sibling) canReplace(other sibling) bool {
	return supportRank(s.format) <= supportRank(other.format) && s.flattened == other.flattened && len(s.body) <= len(other.body)
}

// looksAsGoodAs reports whether s looks at least as good as other: by their scores, where both were measured.
func (s sibling) looksAsGoodAs(other sibling) bool {
	if s.score > 0 && other.score > 0 {
		return s.score+tolerance >= other.score
	}
	return typicalScore(s.format, s.quality) >= typicalScore(other.format, other.quality)
}

// supportRank orders formats by who cannot read them. Who reads AVIF reads WebP, and everybody reads JPEG and PNG.
func supportRank(f pipeline.Format) int {
	switch f {
	case pipeline.AVIF:
		return 2
	case pipeline.WebP:
		return 1
	default:
		return 0
	}
}

// typicalScore returns the score that photographs typically have in a format at a quality. PNG is above all.
func typicalScore(f pipeline.Format, quality int) float64 {
	if f == pipeline.PNG {
		return math.Inf(1)
	}
	return typicalScores[f].score(quality)
}

// isOversize reports whether a file has as many pixels as the source, and more bytes.
func (e *encoder) isOversize(frame size, file encoding) bool {
	return frame == e.source.upright && len(file.body) > e.source.bytes
}

// mustLower reports whether an output that exceeds the source is worth other encodings: one that clients cannot do without, or
// one of the source's own format, which must be able to do as well. Others may be dropped, and cost nothing more.
func (e *encoder) mustLower(r pipeline.Rendition, format pipeline.Format) bool {
	widest := slices.MinFunc(r.Formats, func(a, b pipeline.Output) int { return supportRank(a.Format) - supportRank(b.Format) })
	name, marked := e.spec.DefaultOutput()
	return supportRank(format) == supportRank(widest.Format) || format == e.source.format || r.Name == name && format == marked
}

// lowerQuality returns a file of a framed picture that is not larger than the source, if that can be had.
func (e *encoder) lowerQuality(framed *vips.ImageRef, key encodeKey, asked encoding) (encoding, error) {
	if file, ok := e.lowered[key]; ok {
		return file, nil
	}
	floor := max(pipeline.DefaultQuality(key.format)/2, key.target.Min)
	// Fewer bytes lose little only of a source that has been through as few in the same format. Of any other they lose
	// something at every quality: if that does not even save what it is for, it is spared.
	spared := e.source.lossless || e.source.format != key.format
	file, err := highestQualityWithin(asked, floor, e.source.bytes, spared, func(quality int) (encoding, error) {
		return e.encode(framed, key, func(img *vips.ImageRef, key encodeKey) (encoding, error) {
			file, err := write(img, key.format, quality)
			if err != nil || key.target == (pipeline.Target{}) {
				return file, err
			}
			j, err := newScorer(img)
			if err != nil || j == nil {
				return file, err
			}
			file.score, err = j.score(file.body)
			return file, err
		})
	})
	if err == nil {
		e.lowered[key] = file
	}
	return file, err
}

// highestQualityWithin looks for the highest quality between floor and what was asked for whose file has at most limit bytes, in three
// tries. If not even floor is small enough, that is the file, or the one that was asked for if it is to be spared.
func highestQualityWithin(asked encoding, floor, limit int, spared bool, try func(quality int) (encoding, error)) (encoding, error) {
	if asked.quality <= floor {
		return asked, nil
	}
	best, err := try(floor)
	if err != nil {
		return encoding{}, err
	}
	if len(best.body) > limit && (spared || len(best.body) >= len(asked.body)) {
		return asked, nil
	}
	high := asked
	for range 2 {
		if len(best.body) > limit || best.quality+1 >= high.quality {
			break
		}
		this, err := try(interpolateQuality(best, high, limit))
		if err != nil {
			return encoding{}, err
		}
		if len(this.body) <= limit {
			best = this
		} else {
			high = this
		}
	}
	best.lowered = best.quality
	return best, nil
}

// interpolateQuality guesses the quality of a file with limit bytes from a smaller and a larger one: the logarithm of a file's size
// grows about evenly with quality.
func interpolateQuality(low, high encoding, limit int) int {
	ratio := func(n int) float64 { return math.Log(float64(n) / float64(len(low.body))) }
	step := float64(high.quality-low.quality) * ratio(limit) / ratio(len(high.body))
	return min(max(low.quality+int(step), low.quality+1), high.quality-1)
}
