package program

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/foundation/pipeline"
)

func TestInstanceName(t *testing.T) {
	t.Parallel()
	t.Run("differs_by_process", testInstanceNameDiffersByProcess)
}

func testInstanceNameDiffersByProcess(t *testing.T) {
	t.Parallel()
	if got := instanceName("vitrine-worker-6f", 1); got != "vitrine-worker-6f" {
		t.Errorf("got %s, want the pod's name", got)
	}
	if a, b := instanceName("host", 7), instanceName("host", 8); a == b {
		t.Errorf("two processes of a host have the name %s", a)
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	t.Run("short_text_on_one_line", testReasonShortTextOnOneLine)
}

func testReasonShortTextOnOneLine(t *testing.T) {
	t.Parallel()
	if got := reason(nil); got != "" {
		t.Errorf("got %q", got)
	}
	got := reason(errors.New("yaml: line 2:\n  found \x00 and \xff" + strings.Repeat("ü", maxReason)))
	if !strings.HasPrefix(got, "yaml: line 2:   found   and ?") || strings.ContainsAny(got, "\n\x00") ||
		!utf8.ValidString(got) || len(got) > maxReason+10 {
		t.Errorf("got %q", got)
	}
}

// fakeHeartbeats records the time of each report, and may hang until the context ends.
type fakeHeartbeats struct {
	start    time.Time
	reports  []time.Duration // since start
	removals int
	hangs    bool
}

func (r *fakeHeartbeats) RecordHeartbeat(ctx context.Context, _ pipeline.Report) error {
	r.reports = append(r.reports, time.Since(r.start))
	if r.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (r *fakeHeartbeats) RemoveHeartbeat(ctx context.Context, _, _ string) error {
	r.removals++
	if r.hangs {
		<-ctx.Done()
	}
	return ctx.Err()
}

// runHeartbeat runs a heartbeat during a call, and returns its log and the time it needed to stop.
func runHeartbeat(t *testing.T, store *fakeHeartbeats, during func(h *heartbeat),
) (logs *observer.ObservedLogs, stopping time.Duration) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	store.start = time.Now()
	h := &heartbeat{
		store: store, now: time.Now, log: zap.New(core), interval: heartbeatInterval, pending: make(chan struct{}, 1),
		state: func() pipeline.State { return pipeline.State{Revision: pipeline.NewRevision(pipeline.Default())} },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.run(ctx) }()
	during(h)
	stop := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return logs, time.Since(stop)
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	t.Run("at_start_interval_and_request", testHeartbeatAtStartIntervalAndRequest)
	t.Run("database_hangs", testHeartbeatDatabaseHangs)
}

func testHeartbeatAtStartIntervalAndRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeHeartbeats{}
		_, stopping := runHeartbeat(t, store, func(h *heartbeat) {
			<-time.After(heartbeatInterval + time.Second)
			for range 9 { // one report is enough; there is a second if the first was in progress
				h.request()
			}
			<-time.After(time.Second)
		})
		want := []time.Duration{0, heartbeatInterval, heartbeatInterval + time.Second}
		if got := slices.Compact(slices.Clone(store.reports)); !slices.Equal(got, want) || len(store.reports) > len(want)+1 {
			t.Errorf("reports at %v, want %v", store.reports, want)
		}
		if store.removals != 1 || stopping != 0 {
			t.Errorf("removed %d times in %v", store.removals, stopping)
		}
	})
}

func testHeartbeatDatabaseHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeHeartbeats{hangs: true}
		logs, stopping := runHeartbeat(t, store, func(*heartbeat) { <-time.After(heartbeatInterval + time.Second) })
		if len(store.reports) != 2 || store.removals != 1 || stopping > removeTimeout {
			t.Errorf("reports at %v, removed %d times in %v", store.reports, store.removals, stopping)
		}
		if n := logs.FilterMessage("heartbeat failed").Len(); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
	})
}

func TestLogReload(t *testing.T) {
	t.Parallel()
	t.Run("one_line_per_change", testLogReloadOneLinePerChange)
}

func testLogReloadOneLinePerChange(t *testing.T) {
	t.Parallel()
	start := pipeline.State{Revision: pipeline.NewRevision(pipeline.Default()), ReloadedAt: time.Unix(1, 0)}
	blind := start
	blind.WatchErr = errors.New("too many open files")
	reloaded := blind
	reloaded.ReloadedAt = time.Unix(2, 0)
	refused := reloaded
	refused.ReloadedAt, refused.Err = time.Unix(3, 0), errors.New("no renditions")
	watched := refused
	watched.WatchErr = nil
	last := start
	for _, step := range []struct {
		state pipeline.State
		level zapcore.Level
		want  string
	}{
		{blind, zap.WarnLevel, "pipeline directory is not watched, the file is polled"},
		{reloaded, zap.InfoLevel, "pipeline in force"},
		{refused, zap.ErrorLevel, "pipeline refused, the last good one stays in force"},
		{watched, zap.InfoLevel, "pipeline directory is watched"},
	} {
		core, logs := observer.New(zap.DebugLevel)
		logReload(zap.New(core), last, step.state)
		if all := logs.All(); len(all) != 1 || all[0].Level != step.level || all[0].Message != step.want {
			t.Errorf("got %v, want %q", all, step.want)
		}
		last = step.state
	}
}
