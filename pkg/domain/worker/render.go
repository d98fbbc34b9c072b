package worker

import (
	"context"

	"vitrine.io/pkg/foundation/media"
)

// render makes the renditions. A failure that cost the codec is blamed on the content, by its hash: the URL may serve other
// content next time. The next try of the same content renders it safely, and if that costs a codec, too, the catalogue gives
// the image up.
func (w *Worker) render(ctx context.Context, t *task, src Download) (media.Rendered, error) {
	render, again := w.Codec.Render, t.attempt.PoisonSHA256 != "" && t.attempt.PoisonSHA256 == src.SHA256
	if again {
		render = w.Codec.RenderSafe
	}
	out, err := render(ctx, src.Body, t.spec)
	w.Breakers.observeCodec(err)
	f := media.FailureOf(err)
	if !f.CodecLost() {
		return out, err
	}
	blamed := *f
	blamed.Content = src.SHA256
	if again {
		blamed.Code, blamed.Detail = media.CodecCrashed, "no codec survives this picture; the second time: "+f.Detail
	}
	return out, &blamed
}
