package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"runtime/debug"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/sandbox"
)

func main() {
	stdout, err := claimStdout()
	if err == nil {
		err = run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "codec:", err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer,
) error {
	flags := flag.NewFlagSet("codec", flag.ContinueOnError)
	flags.SetOutput(stderr)
	version := flags.Bool("version", false, "print versions and exit")
	selftest := flags.Bool("selftest", false, "render a small image in every format and exit")
	sandboxMode := flags.String("sandbox", "on", "on or off; off allows all system calls")
	addressSpace := flags.Int64("address-space", 0, "bytes of address space that may be added after start; 0: no limit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *version {
		build, _ := debug.ReadBuildInfo()
		_, err := fmt.Fprintf(stdout, "codec %s, libvips %s, %s\n", build.Main.Version, imaging.Version(), build.GoVersion)
		return err
	}
	if *sandboxMode != "on" && *sandboxMode != "off" {
		return fmt.Errorf("sandbox is %q, not on or off", *sandboxMode)
	}
	if getenv("VIPS_BLOCK_UNTRUSTED") != "1" {
		return errors.New("VIPS_BLOCK_UNTRUSTED is not 1: libvips would read untrusted files with loaders that are not fuzzed")
	}
	if err := imaging.Start(imaging.Config{Warn: func(message string) { fmt.Fprintln(stderr, message) }}); err != nil {
		return err
	}
	defer imaging.Shutdown()
	if err := limitMemory(*addressSpace); err != nil {
		return err
	}
	// The sandbox comes last: libvips and the memory limit open files.
	if *sandboxMode == "on" {
		if err := sandbox.Enter(); err != nil {
			return fmt.Errorf("%w; VITRINE_CODEC_SANDBOX=off disables it", err)
		}
	}
	if *selftest {
		return runSelftest(stdout)
	}
	return codecproto.Serve(ctx, stdin, stdout, imaging.Render, imaging.Compare)
}

// runSelftest renders a small image in every format.
func runSelftest(out io.Writer) error {
	var source bytes.Buffer
	_ = png.Encode(&source, image.NewNRGBA(image.Rect(0, 0, 64, 48))) // a bytes.Buffer does not fail
	spec := pipeline.Default().Spec
	spec.Renditions = []pipeline.Rendition{{Name: "test", Width: 32, Formats: []pipeline.Output{
		{Format: pipeline.JPEG, Quality: 80}, {Format: pipeline.WebP, Quality: 79},
		{Format: pipeline.AVIF, Quality: 63}, {Format: pipeline.PNG},
	}}}
	rendered, err := imaging.Render(source.Bytes(), spec)
	if err != nil {
		return fmt.Errorf("selftest: %w", err)
	}
	// Dropped outputs have been encoded and read back like the others.
	_, err = fmt.Fprintf(out, "ok: %d formats, libvips %s\n", len(rendered.Files)+len(rendered.Dropped), imaging.Version())
	return err
}
