package worker

import (
	"context"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// render makes the renditions. A codec that dies or has to be killed is blamed on the content it had, by its hash: the URL
// may serve something else next time. The next try of the same content is made with more care, and a codec that does not
// survive that either is the last: the catalogue gives the picture up.
func (w *Worker) render(
	ctx context.Context, a catalog.Attempt, src Download, spec pipeline.Spec,
) (media.Rendered, error) {
	render, again := w.codec.Render, a.Killer != "" && a.Killer == src.SHA256
	if again {
		render = w.codec.RenderSafe
	}
	made, err := render(ctx, src.Body, spec)
	f := media.FailureOf(err)
	if !f.LostCodec() {
		return made, err
	}
	blamed := *f
	blamed.Content = src.SHA256
	if again {
		blamed.Code, blamed.Detail = media.CodecCrashed, "no codec survives this picture; the second time: "+f.Detail
	}
	return made, &blamed
}
