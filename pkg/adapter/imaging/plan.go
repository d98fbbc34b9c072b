package imaging

import (
	"cmp"
	"math"
	"slices"

	"vitrine.io/pkg/foundation/pipeline"
)

// MaxSide is the longest side of an output in pixels: the limit of WebP, the lowest of all formats. It applies to a
// rendition without a height when the source is very tall.
const MaxSide = 16383

// size is a width and a height in pixels.
type size struct{ width, height int }

// stage is one size of the whole image, and the renditions that are framed from it.
type stage struct {
	size
	framings []framing
}

// framing is the frame of one rendition around the image of a stage: as large (inside), smaller (cover) or larger (contain).
type framing struct {
	frame     size
	rendition pipeline.Rendition
}

// planStages returns the sizes that the renditions need of a source, largest first, so that each can be scaled from the one
// before it. Renditions that need the same size share a stage.
func planStages(renditions []pipeline.Rendition, source size) []stage {
	var stages []stage
	for _, r := range renditions {
		scaled, frame := fit(r, source)
		i := slices.IndexFunc(stages, func(s stage) bool { return s.size == scaled })
		if i < 0 {
			stages = append(stages, stage{size: scaled})
			i = len(stages) - 1
		}
		stages[i].framings = append(stages[i].framings, framing{frame: frame, rendition: r})
	}
	slices.SortStableFunc(stages, func(a, b stage) int {
		return cmp.Or(cmp.Compare(b.width, a.width), cmp.Compare(b.height, a.height))
	})
	return stages
}

// fit returns the size to which the whole source is scaled for a rendition, and the size of the frame around it.
func fit(r pipeline.Rendition, source size) (scaled, frame size) {
	box := size{min(r.Width, MaxSide), min(r.Height, MaxSide)}
	if box.height == 0 {
		box.height = MaxSide
	}
	across := float64(box.width) / float64(source.width) // the factors by which the source would have to grow to fill the box
	down := float64(box.height) / float64(source.height)
	switch r.Fit {
	case pipeline.Cover:
		frame = box.times(min(1, 1/across, 1/down))
		by := max(float64(frame.width)/float64(source.width), float64(frame.height)/float64(source.height))
		scaled = source.times(by)
		return size{max(scaled.width, frame.width), max(scaled.height, frame.height)}, frame
	case pipeline.Contain:
		frame = box.times(min(1, max(1/across, 1/down)))
		by := min(1, float64(frame.width)/float64(source.width), float64(frame.height)/float64(source.height))
		scaled = source.times(by)
		return size{min(scaled.width, frame.width), min(scaled.height, frame.height)}, frame
	default:
		scaled = source.times(min(1, across, down))
		return scaled, scaled
	}
}

// times returns s scaled by k and rounded; both sides have at least one pixel.
func (s size) times(k float64) size {
	round := func(n int) int { return max(1, int(math.Round(float64(n)*k))) }
	return size{round(s.width), round(s.height)}
}
