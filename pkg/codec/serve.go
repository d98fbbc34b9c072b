package codec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// Serve is a child's life: it says hello on out, then makes the renditions of one picture after the other from in until in
// ends, which is how a parent lets go of a child, or until ctx ends, which closes in if it can be closed. A panic in render
// is left to end the process: after it nothing here can be trusted.
func Serve(
	ctx context.Context, in io.Reader, out io.Writer,
	render func(source []byte, spec pipeline.Spec) (media.Rendered, error),
) error {
	if closer, ok := in.(io.Closer); ok {
		defer context.AfterFunc(ctx, func() { _ = closer.Close() })() // ends a read that waits for the next picture
	}
	w := bufio.NewWriter(out)
	if err := writeJSON(w, frameHello, hello{Protocol: protocolVersion}); err != nil {
		return fmt.Errorf("say hello: %w", err)
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
		if err := reply(w, q, source, render); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return errors.Join(w.Flush(), ctx.Err())
}

func reply(w io.Writer, q request, source []byte,
	render func(source []byte, spec pipeline.Spec) (media.Rendered, error),
) error {
	made, err := render(source, q.Spec)
	if err == nil {
		return writeAnswer(w, q.Seq, made)
	}
	why := media.FailureOf(err)
	if why == nil {
		why = media.Fail(media.CodecCrashed, "the codec failed on this picture", err)
	}
	return writeFailure(w, q.Seq, why)
}
