package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// command is a program to run to its end.
type command struct {
	name  string
	args  []string
	stdin io.Reader // nil is empty
}

// runner runs a command and returns its standard output, also with an error. The error contains the end of its standard
// error. Commands may run concurrently.
type runner interface {
	run(ctx context.Context, c command) (stdout string, err error)
}

// programs runs commands on this machine. When ctx ends, it interrupts them.
type programs struct{}

func (programs) run(ctx context.Context, c command) (string, error) {
	cmd := exec.CommandContext(ctx, c.name, c.args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", c, err, lastLines(stderr.String(), 10))
	}
	return stdout.String(), nil
}

// String returns the command line, shortened to 200 bytes.
func (c command) String() string {
	const limit = 200
	text := strings.Join(append([]string{c.name}, c.args...), " ")
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return text
}

// lastLines returns the last n lines of text, without surrounding white space.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// until calls check every interval until it returns nil. After limit it returns check's last error.
func until(ctx context.Context, what string, limit, interval time.Duration, check func(context.Context) error) error {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := errors.New("no result")
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err // not the error of a canceled call
		}
		select {
		case <-ctx.Done():
			if err := parent.Err(); err != nil {
				return err
			}
			return fmt.Errorf("wait %s for %s: %w", limit, what, last)
		case <-ticker.C:
		}
	}
}
