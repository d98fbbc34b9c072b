package codecproto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Renderer renders one image. Its errors are *media.Failure; any other error is sent as codec_crashed.
type Renderer func(source []byte, spec pipeline.Spec) (media.Rendered, error)

// Comparer compares files with the source that they were made from, and returns one score for each. Errors are as those of a
// Renderer.
type Comparer func(source []byte, spec pipeline.Spec, files []media.Comparison) ([]media.Score, error)

// Serve is the main loop of a child: it writes the hello to out, then renders or compares one image after the other from in.
// It returns nil when in ends, which is how a parent stops a child, and ctx's error when ctx ends, which closes in if in is
// an io.Closer. A panic in render or compare ends the process: its state is no longer reliable.
func Serve(ctx context.Context, in io.Reader, out io.Writer, render Renderer, compare Comparer) error {
	if closer, ok := in.(io.Closer); ok {
		defer context.AfterFunc(ctx, func() { _ = closer.Close() })() // this ends a read that waits for the next image
	}
	w := bufio.NewWriter(out)
	if err := writeJSON(w, frameHello, hello{Protocol: version}); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	for ctx.Err() == nil {
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		q, source, err := readRequest(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("read request: %w", err)
		}
		if err := reply(w, q, source, render, compare); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return errors.Join(w.Flush(), ctx.Err())
}

func reply(w io.Writer, q request, source []byte, render Renderer, compare Comparer) error {
	var err error
	if len(q.Compare) > 0 {
		var found []media.Score
		if found, err = compare(source, q.Spec, q.Compare); err == nil {
			return writeJSON(w, frameScores, scores{Seq: q.Seq, Scores: found})
		}
	} else {
		var rendered media.Rendered
		if rendered, err = render(source, q.Spec); err == nil {
			return writeAnswer(w, q.Seq, rendered)
		}
	}
	why := media.FailureOf(err)
	if why == nil {
		why = media.Fail(media.CodecCrashed, "the codec failed on this image", err)
	}
	return writeFailure(w, q.Seq, why)
}
