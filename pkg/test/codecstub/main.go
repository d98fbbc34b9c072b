package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// defaultPause is the pause if the program's name has no suffix.
const defaultPause = 500 * time.Millisecond

func main() {
	if err := run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, time.After); err != nil {
		fmt.Fprintln(os.Stderr, "codecstub:", err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, after func(time.Duration) <-chan time.Time,
) error {
	flags := flag.NewFlagSet("codecstub", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Int64("address-space", 0, "ignored; accepted for compatibility with codec")
	flags.String("sandbox", "on", "ignored; accepted for compatibility with codec")
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	pause, err := pauseOf(args[0])
	if err != nil {
		return err
	}
	return codecproto.Serve(ctx, stdin, stdout, func(source []byte, spec pipeline.Spec) (media.Rendered, error) {
		select {
		case <-after(pause):
		case <-ctx.Done():
		}
		return answer(source, spec)
	}, func(_ []byte, _ pipeline.Spec, files []media.Comparison) ([]media.Score, error) {
		return make([]media.Score, len(files)), nil // not comparable
	})
}

// pauseOf returns the duration in the suffix of a program's name: 250ms for codecstub-250ms.
func pauseOf(program string) (time.Duration, error) {
	name := filepath.Base(program)
	text := name[strings.LastIndex(name, "-")+1:]
	if text == "" || text[0] < '0' || text[0] > '9' {
		return defaultPause, nil
	}
	pause, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("parse the pause in the name %s: %w", name, err)
	}
	return pause, nil
}
