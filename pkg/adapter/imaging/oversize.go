package imaging

import (
	"math"
	"slices"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// original describes the file of the source, with which outputs are compared.
type original struct {
	format   pipeline.Format
	upright  size
	bytes    int
	lossless bool // PNG, GIF or lossless WebP
}

func newOriginal(source []byte, format pipeline.Format, upright size) original {
	return original{
		format: format, upright: upright, bytes: len(source),
		lossless: format == pipeline.PNG || format == pipeline.GIF || format == pipeline.WebP && losslessWebP(source),
	}
}

// sibling is one of the outputs of a rendition.
type sibling struct {
	encoding
	format    pipeline.Format
	flattened bool // the source's transparency is lost
	isDefault bool // the default output of the pipeline
	oversize  bool // it has as many pixels as the source, and more bytes
}

// dropReasons returns for each output of a rendition why it is dropped, or "" if it stays. The default output stays. The
// smallest output of the most widely supported formats also stays, so that a rendition always keeps a file.
func dropReasons(siblings []sibling) []media.Reason {
	order := make([]int, len(siblings))
	for i := range order {
		order[i] = i
	}
	// The most widely supported formats come first, so that the decision on them is final when others are compared with
	// them.
	slices.SortStableFunc(order, func(i, j int) int {
		return supportRank(siblings[i].format) - supportRank(siblings[j].format)
	})
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

// canReplace reports whether every client that supports other also supports s, and s has the same transparency and no more
// bytes.
func (s sibling) canReplace(other sibling) bool {
	return supportRank(s.format) <= supportRank(other.format) && s.flattened == other.flattened &&
		len(s.body) <= len(other.body)
}

// looksAsGoodAs reports whether s looks at least as good as other: by their scores if both were measured, or else by the
// typical scores of their qualities.
func (s sibling) looksAsGoodAs(other sibling) bool {
	if s.score > 0 && other.score > 0 {
		return s.score+tolerance >= other.score
	}
	return typicalScore(s.format, s.quality) >= typicalScore(other.format, other.quality)
}

// supportRank orders formats by client support, the most widely supported first: clients that support AVIF also support
// WebP, and all clients support JPEG and PNG.
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

// typicalScore returns the score that photographs typically have in a format at a quality. PNG is lossless and above all.
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

// mustLower reports whether an oversize output is encoded again at a lower quality instead of being dropped. This applies
// to the default output, to outputs of the rendition's most widely supported formats, and to outputs of the source's
// format, which can be at least as small as the source.
func (e *encoder) mustLower(r pipeline.Rendition, format pipeline.Format) bool {
	widest := slices.MinFunc(r.Formats, func(a, b pipeline.Output) int { return supportRank(a.Format) - supportRank(b.Format) })
	name, marked := e.spec.DefaultOutput()
	return supportRank(format) == supportRank(widest.Format) || format == e.source.format || r.Name == name && format == marked
}

// lowerQuality returns a file of a framed image that is not larger than the source, if there is one within the bounds of
// quality.
func (e *encoder) lowerQuality(framed *vips.ImageRef, key encodeKey, requested encoding) (encoding, error) {
	if file, ok := e.lowered[key]; ok {
		return file, nil
	}
	floor := max(pipeline.DefaultQuality(key.format)/2, key.target.Min)
	// A lower quality loses little detail only if the source is lossy and of the same format. Otherwise every lower
	// quality loses detail, so the requested quality is kept if even the floor is not small enough.
	keep := e.source.lossless || e.source.format != key.format
	file, err := highestQualityWithin(requested, floor, e.source.bytes, keep, func(quality int) (encoding, error) {
		return e.encode(framed, key, func(img *vips.ImageRef, key encodeKey) (encoding, error) {
			file, err := write(img, key.format, quality)
			if err != nil || key.target == (pipeline.Target{}) {
				return file, err
			}
			reference, err := newReference(img)
			if reference != nil {
				file.score, err = score(reference, file.body)
			}
			return file, err
		})
	})
	if err == nil {
		e.lowered[key] = file
	}
	return file, err
}

// highestQualityWithin returns the encoding with the highest quality between floor and the requested one that has at most
// limit bytes, as far as three tries find it. If floor has more bytes, it returns floor, or requested if keep is true or
// floor is not smaller.
func highestQualityWithin(
	requested encoding, floor, limit int, keep bool, try func(quality int) (encoding, error),
) (encoding, error) {
	if requested.quality <= floor {
		return requested, nil
	}
	best, err := try(floor)
	if err != nil {
		return encoding{}, err
	}
	if len(best.body) > limit && (keep || len(best.body) >= len(requested.body)) {
		return requested, nil
	}
	high := requested
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

// interpolateQuality estimates the quality of a file with limit bytes from a smaller and a larger file: the logarithm of the
// size is about linear in the quality.
func interpolateQuality(low, high encoding, limit int) int {
	ratio := func(n int) float64 { return math.Log(float64(n) / float64(len(low.body))) }
	step := float64(high.quality-low.quality) * ratio(limit) / ratio(len(high.body))
	return min(max(low.quality+int(step), low.quality+1), high.quality-1)
}
