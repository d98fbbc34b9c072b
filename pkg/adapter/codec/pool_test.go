package codec_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
)

// longDeadline is a deadline that no test reaches.
const longDeadline = 5 * time.Minute

// fixture is a pool of fake codecs.
type fixture struct {
	*codec.Pool
	reg *prometheus.Registry
	log *observer.ObservedLogs
}

func newFixture(t *testing.T, change func(*codec.Config), options ...codec.Option) fixture {
	t.Helper()
	cfg := fakeConfig()
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	reg := prometheus.NewPedanticRegistry()
	p, err := codec.New(cfg, reg, zap.New(core), append([]codec.Option{codec.WithEnv("FAKE_CODEC=codec")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return fixture{p, reg, logs}
}

// mustRender renders and returns the placeholder, which is the child's id.
func (r fixture) mustRender(t *testing.T, source string) string {
	t.Helper()
	got, err := r.Render(t.Context(), []byte(source), fakeSpec(longDeadline))
	if err != nil {
		t.Fatalf("render %q: %v", source, err)
	}
	return got.Placeholder
}

// wantFailure renders and wants a failure with the code want.
func (r fixture) wantFailure(t *testing.T, source string, deadline time.Duration, want media.Code) {
	t.Helper()
	if got := r.failure(t, source, deadline); got.Code != want {
		t.Fatalf("render %q: %v, want %s", source, got, want)
	}
}

func (r fixture) failure(t *testing.T, source string, deadline time.Duration) *media.Failure {
	t.Helper()
	_, err := r.Render(t.Context(), []byte(source), fakeSpec(deadline))
	failure := media.FailureOf(err)
	if failure == nil {
		t.Fatalf("render %q: error is %v, want a failure", source, err)
	}
	return failure
}

func (r fixture) restarts(t *testing.T, reason string) float64 {
	t.Helper()
	return r.metric(t, "vitrine_codec_restarts_total", reason)
}

// metric returns a metric's value; label is the value of its only label, "" for none.
func (r fixture) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || (label != "" && m.GetLabel()[0].GetValue() != label) {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

// eventually waits for a condition for at most two minutes.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("timed out while waiting until %s", what)
		}
	}
}

// exited reports whether a process has been reaped.
func exited(pid string) bool { return !exists("/proc/" + pid) }

func TestRender(t *testing.T) {
	t.Parallel()
	t.Run("renditions_and_metrics", testRenderRenditionsAndMetrics)
	t.Run("broken_child", testRenderBrokenChild)
	t.Run("detail_names_exit_status", testRenderDetailNamesExitStatus)
	t.Run("deadline_exceeded", testRenderDeadlineExceeded)
	t.Run("deadline_exceeded_while_sending", testRenderDeadlineExceededWhileSending)
	t.Run("image_failure_keeps_child", testRenderImageFailureKeepsChild)
	t.Run("caller_cancels", testRenderCallerCancels)
}

func testRenderRenditionsAndMetrics(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	spec := fakeSpec(longDeadline)
	got, err := r.Render(t.Context(), []byte("ok"), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got.Format != "jpeg" || got.Width != 40 || got.Height != 30 || len(got.Files) != 4 {
		t.Errorf("got %+v", got)
	}
	for _, o := range got.Files {
		if want := o.Name + "." + string(o.Format); string(o.Body) != want || o.Width != 20 || o.Height != 15 {
			t.Errorf("output %+v, want body %s", o, want)
		}
	}
	if last := got.Files[3]; !last.Default || got.Files[1].Default {
		t.Error("the default output is not the widest JPEG")
	}
	if second := r.mustRender(t, "ok"); second != got.Placeholder {
		t.Errorf("the second image went to process %s, not %s", second, got.Placeholder)
	}
	if n := r.metric(t, "vitrine_codec_render_seconds", "ok"); n != 2 {
		t.Errorf("%v images are counted, want 2", n)
	}
	if n := r.metric(t, "vitrine_codec_children", ""); n != 1 {
		t.Errorf("%v children, want 1", n)
	}
	if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func testRenderBrokenChild(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"exits":                 "exit",
		"killed_by_signal":      "segv",
		"panics":                "panic",
		"allocation_fails":      "gorge",
		"closes_pipe":           "close",
		"prints_to_stdout":      "garbage",
		"ends_within_answer":    "half",
		"length_of_4_gib":       "raw \xff\xff\xff\xffA",
		"length_over_limit":     "raw \x10\x00\x00\x01B",
		"answers_with_request":  "raw \x00\x00\x00\x02Q{}",
		"answer_is_no_json":     "raw \x00\x00\x00\x02A}{",
		"failure_is_no_json":    "raw \x00\x00\x00\x02F}{",
		"failure_without_code":  "raw \x00\x00\x00\x09F{\"seq\":1}",
		"wrong_sequence_number": "raw \x00\x00\x00\x09A{\"seq\":8}",
		"too_many_bodies":       "raw \x00\x00\x00\x17A{\"seq\":1,\"bodies\":1000}",
		"missing_body":          "raw \x00\x00\x00\x8cA" + pad(bodiless, 0x8c),
		"extra_output":          "extra",
		"missing_output":        "missing",
		"swapped_outputs":       "swapped",
		"output_without_size":   "sizeless",
		"empty_body":            "empty",
		"no_outputs":            "none",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFixture(t, nil)
			before := r.mustRender(t, "ok")
			got := r.failure(t, strings.Replace(source, `"seq":1`, `"seq":2`, 1), longDeadline)
			if got.Code != media.CodecCrashed || got.Cause == nil {
				t.Errorf("got %v, want codec_crashed with a cause", got)
			}
			if after := r.mustRender(t, "ok"); after == before {
				t.Error("the process was not replaced")
			}
			if !exited(before) {
				t.Errorf("process %s is still there", before)
			}
			crashed, outcomes := r.restarts(t, "crashed"), r.metric(t, "vitrine_codec_render_seconds", "codec_crashed")
			if crashed != 1 || outcomes != 1 {
				t.Errorf("%v crashes and %v images of that outcome are counted, want 1 and 1", crashed, outcomes)
			}
		})
	}
}

// bodiless is an answer that refers to a body that was not sent.
const bodiless = `{"seq":1,"width":1,"height":1,"outputs":[{"name":"thumb","format":"webp","width":1,"height":1,"body":7}]}`

func pad(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }

func testRenderDetailNamesExitStatus(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	for source, want := range map[string]string{"exit": "exit status 3", "segv": "signal: killed", "panic": "exit status 2"} {
		if got := r.failure(t, source, longDeadline); !strings.Contains(got.Detail, want) {
			t.Errorf("%s: detail is %q, want %q in it", source, got.Detail, want)
		}
	}
	eventually(t, "the panic is in the log", func() bool {
		return r.log.FilterField(zap.String("line", "panic: at the disco")).Len() == 1
	})
}

func testRenderDeadlineExceeded(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	before := r.mustRender(t, "ok")
	got := r.failure(t, "hang", 50*time.Millisecond)
	if got.Code != media.CodecTimeout || !strings.Contains(got.Detail, "50ms") {
		t.Errorf("got %v, want codec_timeout after 50ms", got)
	}
	if !exited(before) {
		t.Error("the process is still there")
	}
	if after := r.mustRender(t, "ok"); after == before {
		t.Error("the process was not replaced")
	}
	if n := r.restarts(t, "timeout"); n != 1 {
		t.Errorf("%v timeouts are counted, want 1", n)
	}
}

func testRenderDeadlineExceededWhileSending(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	r.mustRender(t, "ok")
	// The child stops reading; the image is larger than the buffer of a pipe.
	hung := make(chan *media.Failure, 1)
	large := "hang " + strings.Repeat("x", 4<<20)
	go func() {
		_, err := r.Render(context.Background(), []byte(large), fakeSpec(100*time.Millisecond))
		hung <- media.FailureOf(err)
	}()
	if got := <-hung; got == nil || got.Code != media.CodecTimeout {
		t.Errorf("got %v, want codec_timeout", got)
	}
}

func testRenderImageFailureKeepsChild(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	before := r.mustRender(t, "ok")
	got := r.failure(t, "corrupt", longDeadline)
	if got.Code != media.Corrupt || got.Detail != "the image is truncated or damaged" || got.Cause == nil ||
		!strings.Contains(got.Cause.Error(), "premature end") {
		t.Errorf("got %v", got)
	}
	if after := r.mustRender(t, "ok"); after != before {
		t.Error("the process was replaced for a damaged image")
	}
	r.wantFailure(t, "confused", longDeadline, media.CodecCrashed)
	if after := r.mustRender(t, "ok"); after == before {
		t.Error("the process was kept after an unknown error")
	}
	if n := r.metric(t, "vitrine_codec_render_seconds", "corrupt"); n != 1 {
		t.Errorf("%v corrupt images are counted, want 1", n)
	}
}

func testRenderCallerCancels(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	pid := r.mustRender(t, "ok")
	started := filepath.Join(t.TempDir(), "started")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Render(ctx, []byte("hang "+started), fakeSpec(longDeadline))
		done <- err
	}()
	eventually(t, "the child has received the image", func() bool { return exists(started) })

	waiting, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := r.Render(waiting, []byte("ok"), fakeSpec(longDeadline)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call that waits for a child returns %v, want context.Canceled", err)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("a busy pool is not ready: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || media.FailureOf(err) != nil {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if !exited(pid) {
		t.Error("the child is still there")
	}
	if n := r.restarts(t, "cancelled"); n != 1 {
		t.Errorf("%v cancelled are counted, want 1", n)
	}
	r.mustRender(t, "ok")
}

func TestRecycle(t *testing.T) {
	t.Parallel()
	t.Run("after_image_count", testRecycleAfterImageCount)
	t.Run("resident_memory_too_large", testRecycleResidentMemoryTooLarge)
	t.Run("idle_child_died", testRecycleIdleChildDied)
}

func testRecycleAfterImageCount(t *testing.T) {
	t.Parallel()
	r := newFixture(t, func(c *codec.Config) { c.RecycleAfter = 3 })
	var pids []string
	for range 7 {
		pids = append(pids, r.mustRender(t, "ok"))
	}
	if len(slices.Compact(slices.Clone(pids))) != 3 || pids[2] != pids[0] || pids[5] != pids[3] {
		t.Errorf("processes were %v, want three images each", pids)
	}
	if n := r.restarts(t, "images"); n != 2 {
		t.Errorf("%v replacements are counted, want 2", n)
	}
	eventually(t, "the first has left", func() bool { return exited(pids[0]) })
}

func testRecycleResidentMemoryTooLarge(t *testing.T) {
	t.Parallel()
	r := newFixture(t, func(c *codec.Config) { c.MaxRSS = 150 << 20 })
	first := r.mustRender(t, "ok")
	if second := r.mustRender(t, "hog"); second != first {
		t.Fatal("the first process was too large from the start")
	}
	if n := r.metric(t, "vitrine_codec_child_rss_bytes", "0"); n < 200<<20 {
		t.Errorf("the metric reports %v bytes, want at least 209715200", n)
	}
	if after := r.mustRender(t, "ok"); after == first {
		t.Error("the process was kept")
	}
	if n := r.restarts(t, "rss"); n != 1 {
		t.Errorf("%v replacements are counted, want 1", n)
	}
}

func testRecycleIdleChildDied(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	before := r.mustRender(t, "ok")
	pid, err := strconv.Atoi(before)
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is reaped", func() bool { return r.metric(t, "vitrine_codec_children", "") == 0 })
	if after := r.mustRender(t, "ok"); after == before {
		t.Error("a dead process answered")
	}
	if n := r.restarts(t, "idle"); n != 1 {
		t.Errorf("%v idle deaths are counted, want 1", n)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	t.Run("backoff_after_failure", testStartBackoffAfterFailure)
	t.Run("recovers", testStartRecovers)
	t.Run("cancelled_is_no_failure", testStartCancelledIsNoFailure)
}

func testStartBackoffAfterFailure(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ mode, cause string }{
		"exits":                  {"exit", "exit status 7"},
		"no_hello":               {"mute", "deadline"},
		"other_protocol_version": {"other", "protocol 9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var offset atomic.Int64
			clock := func() time.Time { return time.Unix(1e9, offset.Load()) }
			r := newFixture(t, func(c *codec.Config) {
				if tc.mode == "mute" {
					c.StartTimeout = 100 * time.Millisecond
				}
			}, codec.WithEnv("FAKE_CODEC="+tc.mode), codec.WithClock(clock))

			got := r.failure(t, "ok", longDeadline)
			if got.Code != media.CodecUnavailable || got.RetryAfter != 500*time.Millisecond ||
				!strings.Contains(got.Error(), tc.cause) {
				t.Errorf("got %v, retry after %s; want codec_unavailable for %q, retry after 500ms", got, got.RetryAfter, tc.cause)
			}
			offset.Add(int64(400 * time.Millisecond))
			if got := r.failure(t, "ok", longDeadline); got.Code != media.CodecUnavailable || got.RetryAfter != 100*time.Millisecond {
				t.Errorf("too early: %v, retry after %s", got, got.RetryAfter)
			}
			if n := r.metric(t, "vitrine_codec_start_failures_total", ""); n != 1 {
				t.Errorf("%v starts failed, want 1: the second call must not try to start", n)
			}
			offset.Add(int64(100 * time.Millisecond))
			if got := r.failure(t, "ok", longDeadline); got.RetryAfter != time.Second {
				t.Errorf("after a second failure: retry after %s, want 1s", got.RetryAfter)
			}
			offset.Add(int64(time.Second))
			if err := r.Ready(t.Context()); media.FailureOf(err) == nil {
				t.Errorf("ready: %v, want codec_unavailable", err)
			}
		})
	}
}

func testStartRecovers(t *testing.T) {
	t.Parallel()
	var offset atomic.Int64
	flag := filepath.Join(t.TempDir(), "installed")
	r := newFixture(t, nil, codec.WithEnv("FAKE_CODEC_FLAG="+flag),
		codec.WithClock(func() time.Time { return time.Unix(1e9, offset.Load()) }))
	r.wantFailure(t, "ok", longDeadline, media.CodecUnavailable)
	touch(flag)
	offset.Add(int64(time.Second))
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	r.mustRender(t, "ok")
	if n := r.metric(t, "vitrine_codec_children", ""); n != 1 {
		t.Errorf("%v children, want the one that Ready started", n)
	}
}

func testStartCancelledIsNoFailure(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil, codec.WithEnv("FAKE_CODEC=mute"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Render(ctx, []byte("ok"), fakeSpec(longDeadline))
	if !errors.Is(err, context.DeadlineExceeded) || media.FailureOf(err) != nil {
		t.Errorf("got %v, want the context's error", err)
	}
	if n := r.metric(t, "vitrine_codec_start_failures_total", ""); n != 0 {
		t.Errorf("%v failed starts, want 0", n)
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	t.Run("environment", testChildrenEnvironment)
	t.Run("stderr_is_rate_limited", testChildrenStderrIsRateLimited)
	t.Run("concurrency", testChildrenConcurrency)
	t.Run("parent_killed", testChildrenParentKilled)
}

func testChildrenEnvironment(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	got := strings.Split(r.mustRender(t, "env"), "\n")
	want := []string{"VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "VIPS_DISC_THRESHOLD=512g", "GOMAXPROCS=1", "FAKE_CODEC=codec"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(slices.DeleteFunc(got, func(v string) bool { return strings.HasPrefix(v, "PWD=") }), want) {
		t.Errorf("a child's environment is %q, want %q", got, want)
	}
}

func testChildrenStderrIsRateLimited(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil, codec.WithClock(func() time.Time { return time.Unix(1e9, 0) }))
	pid := r.mustRender(t, "say 3")
	eventually(t, "its lines are logged", func() bool { return r.log.FilterMessage("codec stderr").Len() == 3 })
	entry := r.log.FilterMessage("codec stderr").All()[1]
	if line := fmt.Sprint(entry.ContextMap()["line"]); !strings.HasPrefix(line, "line 1 xxx") {
		t.Errorf("the second line is %q", line)
	}
	if got := fmt.Sprint(entry.ContextMap()["pid"]); got != pid {
		t.Errorf("logged for process %s, want %s", got, pid)
	}
	r.mustRender(t, "say 20000") // more than the buffer of a pipe: it must be read, but not logged
	eventually(t, "the rest is counted", func() bool {
		return r.metric(t, "vitrine_codec_stderr_dropped_total", "") == 20003-200
	})
	if n := r.log.FilterMessage("codec stderr").Len(); n != 200 {
		t.Errorf("%d lines are logged, want 200", n)
	}
}

func testChildrenConcurrency(t *testing.T) {
	t.Parallel()
	r := newFixture(t, func(c *codec.Config) { c.Children = 3 })
	dir := t.TempDir()
	release := filepath.Join(dir, "release")
	var wg sync.WaitGroup
	pids := make([]string, 5)
	for i := range pids {
		wg.Go(func() {
			started := filepath.Join(dir, strconv.Itoa(i))
			got, err := r.Render(context.Background(), []byte("wait "+started+" "+release), fakeSpec(longDeadline))
			if err != nil {
				t.Errorf("image %d: %v", i, err)
			}
			pids[i] = got.Placeholder
		})
	}
	at := func() (n int) {
		for i := range pids {
			if exists(filepath.Join(dir, strconv.Itoa(i))) {
				n++
			}
		}
		return n
	}
	eventually(t, "three children are busy", func() bool { return at() == 3 })
	if busy, slots := r.metric(t, "vitrine_codec_busy", ""), r.metric(t, "vitrine_codec_slots", ""); busy != 3 || slots != 3 {
		t.Errorf("busy %v of %v, want 3 of 3", busy, slots)
	}
	touch(release)
	wg.Wait()
	slices.Sort(pids)
	if n := len(slices.Compact(pids)); n != 3 {
		t.Errorf("%d processes rendered, want 3", n)
	}
	if busy := r.metric(t, "vitrine_codec_busy", ""); busy != 0 {
		t.Errorf("busy %v at the end, want 0", busy)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("waits_for_render", testCloseWaitsForRender)
	t.Run("deadline_kills_children", testCloseDeadlineKillsChildren)
	t.Run("child_ignores_stdin", testCloseChildIgnoresStdin)
}

func testCloseWaitsForRender(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	pid := r.mustRender(t, "ok")
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "release")
	rendered, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := r.Render(context.Background(), []byte("wait "+started+" "+release), fakeSpec(longDeadline))
		rendered <- err
	}()
	eventually(t, "the child has received the image", func() bool { return exists(started) })
	go func() { closed <- r.Close(context.Background()) }()
	eventually(t, "the pool accepts no more images", func() bool { return r.Ready(t.Context()) != nil })
	if got := r.failure(t, "ok", longDeadline); got.Code != media.CodecUnavailable {
		t.Errorf("an image during Close gets %v, want codec_unavailable", got)
	}
	touch(release)
	if err := <-rendered; err != nil {
		t.Errorf("the image in progress: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if !exited(pid) {
		t.Error("the child is still there")
	}
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("second close: %v", err)
	}
	if got := r.failure(t, "ok", longDeadline); got.Code != media.CodecUnavailable {
		t.Errorf("an image after Close gets %v, want codec_unavailable", got)
	}
	if media.FailureOf(r.Ready(t.Context())) == nil {
		t.Error("a closed pool is ready")
	}
}

func testCloseDeadlineKillsChildren(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	pid := r.mustRender(t, "ok")
	started := filepath.Join(t.TempDir(), "started")
	rendered := make(chan error, 1)
	go func() {
		_, err := r.Render(context.Background(), []byte("hang "+started), fakeSpec(longDeadline))
		rendered <- err
	}()
	eventually(t, "the child has received the image", func() bool { return exists(started) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v, want its context's error", err)
	}
	if got := media.FailureOf(<-rendered); got == nil || got.Code != media.CodecCrashed {
		t.Errorf("the image in progress: %v, want codec_crashed", got)
	}
	if !exited(pid) {
		t.Error("the child is still there")
	}
}

func testCloseChildIgnoresStdin(t *testing.T) {
	t.Parallel()
	r := newFixture(t, func(c *codec.Config) { c.ShutdownGrace = 20 * time.Millisecond }, codec.WithEnv("FAKE_CODEC=deaf"))
	pid := r.mustRender(t, "ok")
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if !exited(pid) {
		t.Error("the child is still there")
	}
}

func testChildrenParentKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(t.TempDir(), "started")
	parent := exec.Command(self)
	parent.Env = []string{"FAKE_CODEC=parent", "FAKE_CODEC_HANG=" + started}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = parent.Process.Kill(), parent.Wait() })
	pid, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child hangs on an image", func() bool { return exists(started) })
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	eventually(t, "the child is dead", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // the zombie of an orphan is reaped by init
	})
}

func TestDescriptors(t *testing.T) { //nolint:paralleltest // it counts the descriptors of the process
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	cycle := func() {
		r := newFixture(t, func(c *codec.Config) { c.RecycleAfter = 2 })
		for _, source := range []string{"ok", "ok", "ok"} {
			r.mustRender(t, source)
		}
		r.wantFailure(t, "exit", longDeadline, media.CodecCrashed)
		r.wantFailure(t, "hang", 20*time.Millisecond, media.CodecTimeout)
		r.wantFailure(t, "close", longDeadline, media.CodecCrashed)
		r.wantFailure(t, "garbage", longDeadline, media.CodecCrashed)
		r.wantFailure(t, "garbage", longDeadline, media.CodecCrashed) // by a child in safe mode
		r.wantFailure(t, "garbage", longDeadline, media.CodecCrashed)
		bad := newFixture(t, nil, codec.WithEnv("FAKE_CODEC=exit"))
		bad.wantFailure(t, "ok", longDeadline, media.CodecUnavailable)
		for _, p := range []fixture{r, bad} {
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	cycle()
	before := open()
	for range 3 {
		cycle()
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}
