package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, system{runner: programs{}, now: time.Now})
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

// streams are a program's standard streams.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// system is what the stages use of the machine they run on.
type system struct {
	runner
	now func() time.Time
}

// dispatch runs the stages, or the helper's command that the first argument names.
func dispatch(ctx context.Context, args []string, std streams, sys system) error {
	name := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("e2e "+name, flag.ContinueOnError)
	flags.SetOutput(std.err)
	switch name {
	case "":
		return runAll(ctx, flags, args, std.out, sys)
	case "proxy":
		return runProxy(ctx, flags, args)
	case "source":
		return runSource(ctx, flags, args)
	case "burst":
		return runBurst(ctx, flags, args, std.out)
	case "load":
		return runLoad(ctx, flags, args, std.in, std.out)
	case "get":
		return runGet(ctx, flags, args, std.out)
	case "crash":
		return syscall.Kill(1, syscall.SIGQUIT)
	case "idle":
		<-ctx.Done()
		return nil
	default:
		return fmt.Errorf("unknown command %q", name)
	}
}
