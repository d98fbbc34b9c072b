package worker

import (
	"context"

	"vitrine.io/pkg/foundation/media"
)

// render renders the source. If the codec process is lost, the failure names the content by its hash and not by its URL,
// because the URL may serve other content next time. The next attempt with the same content uses safe mode. If that loses
// a codec process too, the failure is codec_crashed, and the image fails.
func (w *Worker) render(ctx context.Context, t *task, src Download) (media.Rendered, error) {
	render, poison := w.Codec.Render, t.attempt.PoisonSHA256 != "" && t.attempt.PoisonSHA256 == src.SHA256
	if poison {
		render = w.Codec.RenderSafe
	}
	out, err := render(ctx, src.Body, t.spec)
	w.Breakers.observeCodec(err)
	f := media.FailureOf(err)
	if !f.CodecLost() {
		return out, err
	}
	lost := *f
	lost.Content = src.SHA256
	if poison {
		lost.Code, lost.Detail = media.CodecCrashed, "this image crashed two codec processes; the second: "+f.Detail
	}
	return out, &lost
}
