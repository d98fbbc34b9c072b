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

// usual is the pause of a program whose name ends with none.
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
	flags.Int64("address-space", 0, "taken for the codec's sake: this program needs none")
	flags.String("sandbox", "on", "taken for the codec's sake: this program runs no strangers' code")
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
	})
}

// pauseOf reads the duration that a program's name ends with: 250ms of codecstub-250ms.
func pauseOf(program string) (time.Duration, error) {
	name := filepath.Base(program)
	text := name[strings.LastIndex(name, "-")+1:]
	if text == "" || text[0] < '0' || text[0] > '9' {
		return defaultPause, nil
	}
	pause, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("read the pause in the name %s: %w", name, err)
	}
	return pause, nil
}
