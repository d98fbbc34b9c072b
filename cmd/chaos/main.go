// Command chaos shows that nothing is lost, whatever crashes. See pkg/chaos.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"vitrine.io/pkg/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := chaos.Command(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
