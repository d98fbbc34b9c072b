package imaging

import (
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Functions that are tested without libvips: the walk over containers and the bare WebP.
var (
	Sniff    = sniff
	Complete = complete
	BareWebP = bareWebP
)

// Fit returns the scaled size and the frame of a rendition.
func Fit(r pipeline.Rendition, width, height int) (scaled, frame [2]int) {
	s, f := fit(r, size{width, height})
	return [2]int{s.width, s.height}, [2]int{f.width, f.height}
}

// Plan returns the scaled sizes in the order in which they are rendered.
func Plan(renditions []pipeline.Rendition, width, height int) [][2]int {
	var sizes [][2]int
	for _, s := range planStages(renditions, size{width, height}) {
		sizes = append(sizes, [2]int{s.width, s.height})
	}
	return sizes
}

// Search is search along the typical curve of JPEG, with a function that returns the score of each quality.
func Search(target pipeline.Target, offset float64, score func(quality int) (float64, error),
) (quality int, got float64, err error) {
	found, err := search(target, typicalScores[pipeline.JPEG], offset, func(quality int) (encoding, error) {
		score, err := score(quality)
		return encoding{body: []byte{1}, quality: quality, score: score}, err
	})
	return found.quality, found.score, err
}

// TypicalJPEG returns the typical score of a JPEG of a photograph.
func TypicalJPEG(quality int) float64 { return typicalScores[pipeline.JPEG].score(quality) }

// Header runs the steps of Render before decoding and returns what the header announces; the size is upright.
func Header(source []byte, accept []pipeline.Format, maxPixels int64) (rendered media.Rendered, err error) {
	format, err := detectFormat(source, accept)
	if err != nil {
		return rendered, err
	}
	head, err := readHeader(source, format, maxPixels)
	if err != nil {
		return rendered, err
	}
	return media.Rendered{
		Format: format, Width: head.upright.width, Height: head.upright.height, Animated: head.animated,
	}, nil
}
