package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"vitrine.io/pkg/platform/program"
)

// version is written by the linker: -X main.version.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := program.Run(ctx, program.About{
		Name: "controller", Text: "Vitrine's controller of ImagePipelines in Kubernetes.", Version: version,
	}, program.Invocation{
		Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
		Hostname: os.Hostname, PID: os.Getpid(), Build: debug.ReadBuildInfo,
	}, serve)
	stop()
	os.Exit(code)
}
