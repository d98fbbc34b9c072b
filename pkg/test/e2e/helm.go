package main

import (
	"context"
	"strings"
	"time"
)

// helm is one release of the chart.
type helm struct {
	runner
	program   string
	namespace string
	release   string
	chart     string
	files     []string // of values
	settings  []string // --set
	overlay   string   // additional values, YAML
}

// helmLimit is helm's timeout for an install, an upgrade or a rollback.
const helmLimit = 10 * time.Minute

func (h helm) do(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, helmLimit+time.Minute)
	defer cancel()
	args = append([]string{"--namespace", h.namespace}, args...)
	return h.run(ctx, command{name: h.program, args: args, stdin: strings.NewReader(stdin)})
}

// deploy installs or upgrades the release with its files, its settings and changes, which are additional flags of helm. It
// waits until all pods are ready.
func (h helm) deploy(ctx context.Context, changes ...string) error {
	args := []string{"upgrade", "--install", "--wait", "--timeout", helmLimit.String(), h.release, h.chart}
	for _, file := range h.files {
		args = append(args, "-f", file)
	}
	args = append(args, "-f", "-")
	for _, s := range h.settings {
		args = append(args, "--set", s)
	}
	_, err := h.do(ctx, h.overlay, append(args, changes...)...)
	return err
}

// test runs the chart's tests. It does not use --logs, which looks for pods that have been deleted.
func (h helm) test(ctx context.Context) (string, error) {
	return h.do(ctx, "", "test", h.release, "--timeout", (helmLimit / 2).String())
}

// rollback rolls the release back to the previous revision.
func (h helm) rollback(ctx context.Context) error {
	_, err := h.do(ctx, "", "rollback", h.release, "--wait", "--timeout", helmLimit.String())
	return err
}

// notes returns the chart's notes.
func (h helm) notes(ctx context.Context) (string, error) {
	return h.do(ctx, "", "get", "notes", h.release)
}

func (h helm) uninstall(ctx context.Context) error {
	_, err := h.do(ctx, "", "uninstall", h.release, "--wait", "--timeout", helmLimit.String())
	return err
}
