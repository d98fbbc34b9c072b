package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vitrine.io/pkg/test/servers"
)

// Exit codes of this program; all others are those of the command.
const (
	exitUsage  = 2
	exitFailed = 125 // the servers or the command did not start; env and xargs use this code too
)

func main() {
	os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(args []string, getenv func(string) string, stdout, stderr *os.File) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(stderr, "usage: withservers -- COMMAND [ARGUMENT...]")
		return exitUsage
	}
	// Until the servers are ready a signal ends this program, and the kernel ends its children.
	servers, err := servers.StartServers(getenv, func(name string, elapsed time.Duration) {
		fmt.Fprintf(stderr, "servers: %s is ready after %.1fs\n", name, elapsed.Seconds())
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
