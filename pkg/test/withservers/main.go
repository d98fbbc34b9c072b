package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vitrine.io/pkg/test/servers"
)

// Exit codes of our own, beside those of the command.
const (
	exitUsage  = 2
	exitFailed = 125 // the servers did not start or the command could not be run, as env and xargs have it
)

func main() {
	os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(args []string, getenv func(string) string, stdout, stderr *os.File) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(stderr, "usage: servers -- COMMAND [ARGUMENT...]")
		return exitUsage
	}
	// Until the servers are up a signal just ends us, and the kernel ends what we started.
	servers, err := servers.StartServers(getenv, func(name string, took time.Duration) {
		fmt.Fprintf(stderr, "servers: %s is up after %.1fs\n", name, took.Seconds())
	})
	if err != nil {
		fmt.Fprintf(stderr, "servers: %v\n", err)
		return exitFailed
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	code, err := servers.Run(args, stdout, stderr, signals)
	if err != nil {
		fmt.Fprintf(stderr, "servers: %v\n", err)
		code = exitFailed
	}
	fmt.Fprint(stderr, servers.Crashed())
	if err := servers.Stop(); err != nil {
		fmt.Fprintf(stderr, "servers: %v\n", err)
		code = max(code, 1)
	}
	return code
}
