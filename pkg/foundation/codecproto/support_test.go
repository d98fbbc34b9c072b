package codecproto_test

import (
	"errors"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// testSpec requests two renditions in two formats each.
func testSpec() pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Renditions = spec.Renditions[:2]
	return spec
}

// testRendered is what testSpec requests.
func testRendered(spec pipeline.Spec) media.Rendered {
	rendered := media.Rendered{Format: pipeline.JPEG, Width: 40, Height: 30, Placeholder: "placeholder"}
	name, format := spec.DefaultOutput()
	for _, r := range spec.Renditions {
		for _, o := range r.Formats {
			rendered.Files = append(rendered.Files, media.EncodedFile{
				Name: r.Name, Format: o.Format, Width: 20, Height: 15, Score: 70.25,
				Body: []byte(r.Name + "." + string(o.Format)), Default: r.Name == name && o.Format == format,
			})
		}
	}
	return rendered
}

// testRender fails if the source is the name of a failure.
func testRender(source []byte, spec pipeline.Spec) (media.Rendered, error) {
	switch string(source) {
	case "corrupt":
		return media.Rendered{}, media.Fail(media.Corrupt, "the image is damaged", errors.New("premature end"))
	case "confused":
		return media.Rendered{}, errors.New("no failure of a known kind")
	default:
		return testRendered(spec), nil
	}
}

// testCompare returns the length of each file as its score. It fails if the source is the name of a failure.
func testCompare(source []byte, spec pipeline.Spec, files []media.Comparison) ([]media.Score, error) {
	if _, err := testRender(source, spec); err != nil {
		return nil, err
	}
	found := make([]media.Score, len(files))
	for i, f := range files {
		found[i] = media.Score{Value: float64(len(f.Body)), OK: len(f.Body) > 0}
	}
	return found, nil
}
