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

func TestInstancesAreToldApart(t *testing.T) {
	t.Parallel()
	if got := instanceName("vitrine-worker-6f", 1); got != "vitrine-worker-6f" {
		t.Errorf("got %s, want the pod's name", got)
	}
	if a, b := instanceName("host", 7), instanceName("host", 8); a == b {
		t.Errorf("two processes of a machine are both called %s", a)
	}
}

func TestAReasonIsShortTextOnOneLine(t *testing.T) {
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

// slowRoll notes when it was told something, and may hang.
type slowRoll struct {
	began time.Time
	beats []time.Duration
	left  int
	hangs bool
}

func (r *slowRoll) RecordHeartbeat(ctx context.Context, _ pipeline.Report) error {
	r.beats = append(r.beats, time.Since(r.began))
	if r.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (r *slowRoll) RemoveHeartbeat(ctx context.Context, _, _ string) error {
	r.left++
	if r.hangs {
		<-ctx.Done()
	}
	return ctx.Err()
}

// beating runs a heart for a while.
func beating(t *testing.T, roll *slowRoll, during func(h *heartbeat)) (logs *observer.ObservedLogs, stopping time.Duration) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	roll.began = time.Now()
	h := &heartbeat{
		roll: roll, now: time.Now, log: zap.New(core), every: beatEvery, soon: make(chan struct{}, 1),
		state: func() pipeline.State { return pipeline.State{Revision: pipeline.NewRevision(pipeline.Default())} },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.run(ctx) }()
	during(h)
	told := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return logs, time.Since(told)
}

func TestAHeartBeatsAtOnceInTimeAndWhenThereIsNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		roll := &slowRoll{}
		_, stopping := beating(t, roll, func(h *heartbeat) {
			<-time.After(beatEvery + time.Second)
			for range 9 { // one answer will do, and another if the first was under way
				h.hurry()
			}
			<-time.After(time.Second)
		})
		want := []time.Duration{0, beatEvery, beatEvery + time.Second}
		if got := slices.Compact(slices.Clone(roll.beats)); !slices.Equal(got, want) || len(roll.beats) > len(want)+1 {
			t.Errorf("beats at %v, want %v", roll.beats, want)
		}
		if roll.left != 1 || stopping != 0 {
			t.Errorf("left %d times in %v", roll.left, stopping)
		}
	})
}

func TestADatabaseThatHangsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		roll := &slowRoll{hangs: true}
		logs, stopping := beating(t, roll, func(*heartbeat) { <-time.After(beatEvery + time.Second) })
		if len(roll.beats) != 2 || roll.left != 1 || stopping > leaveTimeout {
			t.Errorf("beats at %v, left %d times in %v", roll.beats, roll.left, stopping)
		}
		if n := logs.FilterMessage("no heartbeat").Len(); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
	})
}

func TestTheLogTellsWhatHasChanged(t *testing.T) {
	t.Parallel()
	start := pipeline.State{Revision: pipeline.NewRevision(pipeline.Default()), Tried: time.Unix(1, 0)}
	blind := start
	blind.Blind = errors.New("too many open files")
	reloaded := blind
	reloaded.Tried = time.Unix(2, 0)
	refused := reloaded
	refused.Tried, refused.Err = time.Unix(3, 0), errors.New("no renditions")
	seeing := refused
	seeing.Blind = nil
	last := start
	for _, step := range []struct {
		state pipeline.State
		level zapcore.Level
		want  string
	}{
		{blind, zap.WarnLevel, "pipeline's directory is not watched, its file is polled"},
		{reloaded, zap.InfoLevel, "pipeline in force"},
		{refused, zap.ErrorLevel, "pipeline refused, the last good one stays in force"},
		{seeing, zap.InfoLevel, "pipeline's directory is watched again"},
	} {
		core, logs := observer.New(zap.DebugLevel)
		logReload(zap.New(core), last, step.state)
		if all := logs.All(); len(all) != 1 || all[0].Level != step.level || all[0].Message != step.want {
			t.Errorf("got %v, want %q", all, step.want)
		}
		last = step.state
	}
}
