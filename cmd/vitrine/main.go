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

	"vitrine.io/pkg/platform/config"
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

// errLogged is returned when the log, which is JSON to its last line, has told what went wrong.
var errLogged = errors.New("see the log")

// console is what every command can touch of the world outside.
type console struct {
	environ        []string
	stdout, stderr io.Writer
	build          telemetry.Build
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	c := console{environ: environ, stdout: stdout, stderr: stderr, build: telemetry.NewBuild(version, debug.ReadBuildInfo)}
	root := &cobra.Command{
		Use: "vitrine", Short: "Set up, run and look after Vitrine, the product catalogue whose pictures take care of themselves.",
		Version: c.build.Version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(
		c.devCommand(), c.setupCommand(), c.waitCommand(), c.migrateCommand(), c.pipelineCommand(),
		c.deadCommand(), c.imagesCommand(), c.restoredCommand(), c.smokeCommand(), c.samplesCommand(),
	)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// configured returns the configuration that the environment gives, over a YAML file if one is named.
func configured[T any](c console, file string) (T, error) {
	var args []string
	if file != "" {
		args = []string{"--config", file}
	}
	cfg, unknown, err := config.Load[T](args, c.environ)
	if err != nil {
		return cfg, config.Hint(err, unknown)
	}
	return cfg, nil
}
