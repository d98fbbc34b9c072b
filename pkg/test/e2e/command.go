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

// runner runs a command and returns what it wrote to standard output, also with an error. The error holds the end of what it
// wrote to standard error. Commands may run at the same time.
type runner interface {
	run(ctx context.Context, c command) (stdout string, err error)
}

// programs runs commands on this machine. A context that ends interrupts them.
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

// String is the command as it may be typed, shortened.
func (c command) String() string {
	const most = 200
	text := strings.Join(append([]string{c.name}, c.args...), " ")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

// lastLines returns the last n lines of text, without the white space around them.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// until asks again and again, until ask returns nil: what is wanted is there. After limit its last answer is the error.
func until(ctx context.Context, what string, limit, pause time.Duration, ask func(context.Context) error) error {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	last := errors.New("it has not answered")
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err // not that of a call that was cut short
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
