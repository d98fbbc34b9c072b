package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/platform/telemetry"
)

// version is written by the linker: -X main.version.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, errLogged) {
		fmt.Fprintln(os.Stderr, "vitrine:", err)
	}
	os.Exit(1)
}

// errLogged is returned when the error is in the log already.
var errLogged = errors.New("see the log")

// console has the environment and the output of a command.
type console struct {
	environ        []string
	stdout, stderr io.Writer
	build          telemetry.Build
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	c := console{environ: environ, stdout: stdout, stderr: stderr, build: telemetry.NewBuild(version, debug.ReadBuildInfo)}
	root := &cobra.Command{
		Use: "vitrine", Short: "Set up, run and inspect Vitrine, a product catalogue that processes its images in the background.",
		Version: c.build.Version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(
		c.devCommand(), c.setupCommand(), c.waitCommand(), c.migrateCommand(), c.pipelineCommand(),
		c.deadCommand(), c.imagesCommand(), c.backfillCommand(), c.restoredCommand(), c.smokeCommand(), c.samplesCommand(),
	)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}
