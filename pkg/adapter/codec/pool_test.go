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

// long is a deadline that no test waits for.
const long = 5 * time.Minute

// rig is a pool of fake codecs.
type rig struct {
	*codec.Pool
	reg *prometheus.Registry
	log *observer.ObservedLogs
}

func newRig(t *testing.T, change func(*codec.Config), options ...codec.Option) rig {
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
	return rig{p, reg, logs}
}

// made renders and returns the placeholder, which is the child's id.
func (r rig) made(t *testing.T, source string) string {
	t.Helper()
	got, err := r.Render(t.Context(), []byte(source), fakeSpec(long))
	if err != nil {
		t.Fatalf("render %q: %v", source, err)
	}
	return got.Placeholder
}

// fails renders and wants a failure of that code.
func (r rig) fails(t *testing.T, source string, deadline time.Duration, want media.Code) {
	t.Helper()
	if got := r.failed(t, source, deadline); got.Code != want {
		t.Fatalf("render %q: %v, want %s", source, got, want)
	}
}

func (r rig) failed(t *testing.T, source string, deadline time.Duration) *media.Failure {
	t.Helper()
	_, err := r.Render(t.Context(), []byte(source), fakeSpec(deadline))
	failure := media.FailureOf(err)
	if failure == nil {
		t.Fatalf("render %q: error is %v, want a failure", source, err)
	}
	return failure
}

func (r rig) restarts(t *testing.T, reason string) float64 {
	t.Helper()
	return r.metric(t, "vitrine_codec_restarts_total", reason)
}

// metric returns a metric's value; label is the value of its only label, "" for none.
func (r rig) metric(t *testing.T, name, label string) float64 {
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
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// gone reports whether a process has left the table; a zombie has not.
func gone(pid string) bool { return !exists("/proc/" + pid) }

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
	r := newRig(t, nil)
	spec := fakeSpec(long)
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
	if again := r.made(t, "ok"); again != got.Placeholder {
		t.Errorf("the second image went to process %s, not %s", again, got.Placeholder)
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
		"it exits":                              "exit",
		"it is killed":                          "segv",
		"it panics":                             "panic",
		"it allocates without end":              "gorge",
		"it closes its pipe":                    "close",
		"it prints to stdout":                   "garbage",
		"it ends in the middle of an answer":    "half",
		"it announces four gigabytes":           "raw \xff\xff\xff\xffA",
		"it announces a gigabyte and ends":      "raw \x10\x00\x00\x01B",
		"it answers with a question":            "raw \x00\x00\x00\x02Q{}",
		"it answers no JSON":                    "raw \x00\x00\x00\x02A}{",
		"it fails without JSON":                 "raw \x00\x00\x00\x02F}{",
		"it fails without a code":               "raw \x00\x00\x00\x09F{\"seq\":1}",
		"it answers to another image":           "raw \x00\x00\x00\x09A{\"seq\":8}",
		"it answers with a thousand bodies":     "raw \x00\x00\x00\x17A{\"seq\":1,\"bodies\":1000}",
		"it answers with a body nobody sent":    "raw \x00\x00\x00\x8cA" + pad(bodiless, 0x8c),
		"it makes more than was asked":          "extra",
		"it makes less than was asked":          "missing",
		"it makes something else":               "swapped",
		"it makes an image without a size":      "sizeless",
		"it makes an empty file":                "empty",
		"it makes nothing and calls it success": "none",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			before := r.made(t, "ok")
			got := r.failed(t, strings.Replace(source, `"seq":1`, `"seq":2`, 1), long)
			if got.Code != media.CodecCrashed || got.Cause == nil {
				t.Errorf("got %v, want codec_crashed with a cause", got)
			}
			if after := r.made(t, "ok"); after == before {
				t.Error("the same process goes on")
			}
			if !gone(before) {
				t.Errorf("process %s is still there", before)
			}
			crashed, outcomes := r.restarts(t, "crashed"), r.metric(t, "vitrine_codec_render_seconds", "codec_crashed")
			if crashed != 1 || outcomes != 1 {
				t.Errorf("%v crashes and %v images of that outcome are counted, want 1 and 1", crashed, outcomes)
			}
		})
	}
}

// bodiless names a body that does not follow.
const bodiless = `{"seq":1,"width":1,"height":1,"outputs":[{"name":"thumb","format":"webp","width":1,"height":1,"body":7}]}`

func pad(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }

func testRenderDetailNamesExitStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for source, want := range map[string]string{"exit": "exit status 3", "segv": "signal: killed", "panic": "exit status 2"} {
		if got := r.failed(t, source, long); !strings.Contains(got.Detail, want) {
			t.Errorf("%s: detail is %q, want %q in it", source, got.Detail, want)
		}
	}
	eventually(t, "the panic is in the log", func() bool {
		return r.log.FilterField(zap.String("line", "panic: at the disco")).Len() == 1
	})
}

func testRenderDeadlineExceeded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	before := r.made(t, "ok")
	got := r.failed(t, "hang", 50*time.Millisecond)
	if got.Code != media.CodecTimeout || !strings.Contains(got.Detail, "50ms") {
		t.Errorf("got %v, want codec_timeout after 50ms", got)
	}
	if !gone(before) {
		t.Error("the process is still there")
	}
	if after := r.made(t, "ok"); after == before {
		t.Error("the same process goes on")
	}
	if n := r.restarts(t, "timeout"); n != 1 {
		t.Errorf("%v timeouts are counted, want 1", n)
	}
}

func testRenderDeadlineExceededWhileSending(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.made(t, "ok")
	// The child stops reading for good; the second image is far larger than a pipe holds.
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
	r := newRig(t, nil)
	before := r.made(t, "ok")
	got := r.failed(t, "corrupt", long)
	if got.Code != media.Corrupt || got.Detail != "the image is truncated or damaged" || got.Cause == nil ||
		!strings.Contains(got.Cause.Error(), "premature end") {
		t.Errorf("got %v", got)
	}
	if after := r.made(t, "ok"); after != before {
		t.Error("the process was replaced for a damaged image")
	}
	r.fails(t, "confused", long, media.CodecCrashed)
	if after := r.made(t, "ok"); after == before {
		t.Error("the process was kept after it could not say what went wrong")
	}
	if n := r.metric(t, "vitrine_codec_render_seconds", "corrupt"); n != 1 {
		t.Errorf("%v corrupt images are counted, want 1", n)
	}
}

func testRenderCallerCancels(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	pid := r.made(t, "ok")
	started := filepath.Join(t.TempDir(), "started")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Render(ctx, []byte("hang "+started), fakeSpec(long))
		done <- err
	}()
	eventually(t, "the child has the image", func() bool { return exists(started) })

	waiting, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := r.Render(waiting, []byte("ok"), fakeSpec(long)); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits for a child gets %v, want context.Canceled", err)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("a busy pool is not ready: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || media.FailureOf(err) != nil {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if !gone(pid) {
		t.Error("the child works on for nobody")
	}
	if n := r.restarts(t, "cancelled"); n != 1 {
		t.Errorf("%v cancelled are counted, want 1", n)
	}
	r.made(t, "ok")
}

func TestRecycle(t *testing.T) {
	t.Parallel()
	t.Run("after_image_count", testRecycleAfterImageCount)
	t.Run("resident_memory_too_large", testRecycleResidentMemoryTooLarge)
	t.Run("idle_child_died", testRecycleIdleChildDied)
}

func testRecycleAfterImageCount(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *codec.Config) { c.RecycleAfter = 3 })
	var pids []string
	for range 7 {
		pids = append(pids, r.made(t, "ok"))
	}
	if len(slices.Compact(slices.Clone(pids))) != 3 || pids[2] != pids[0] || pids[5] != pids[3] {
		t.Errorf("processes were %v, want three images each", pids)
	}
	if n := r.restarts(t, "images"); n != 2 {
		t.Errorf("%v replacements are counted, want 2", n)
	}
	eventually(t, "the first has left", func() bool { return gone(pids[0]) })
}

func testRecycleResidentMemoryTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *codec.Config) { c.MaxRSS = 150 << 20 })
	first := r.made(t, "ok")
	if again := r.made(t, "hog"); again != first {
		t.Fatal("the first process was too large from the start")
	}
	if n := r.metric(t, "vitrine_codec_child_rss_bytes", "0"); n < 200<<20 {
		t.Errorf("the child is said to have %v bytes, want at least 209715200", n)
	}
	if after := r.made(t, "ok"); after == first {
		t.Error("the process was kept")
	}
	if n := r.restarts(t, "rss"); n != 1 {
		t.Errorf("%v replacements are counted, want 1", n)
	}
}

func testRecycleIdleChildDied(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	before := r.made(t, "ok")
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
	if after := r.made(t, "ok"); after == before {
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
		"it exits":                 {"exit", "exit status 7"},
		"it says nothing":          {"mute", "deadline"},
		"it speaks something else": {"other", "protocol 9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var offset atomic.Int64
			clock := func() time.Time { return time.Unix(1e9, offset.Load()) }
			r := newRig(t, func(c *codec.Config) {
				if tc.mode == "mute" {
					c.StartTimeout = 100 * time.Millisecond
				}
			}, codec.WithEnv("FAKE_CODEC="+tc.mode), codec.WithClock(clock))

			got := r.failed(t, "ok", long)
			if got.Code != media.CodecUnavailable || got.RetryAfter != 500*time.Millisecond ||
				!strings.Contains(got.Error(), tc.cause) {
				t.Errorf("got %v, retry after %s; want codec_unavailable for %q, retry after 500ms", got, got.RetryAfter, tc.cause)
			}
			offset.Add(int64(400 * time.Millisecond))
			if got := r.failed(t, "ok", long); got.Code != media.CodecUnavailable || got.RetryAfter != 100*time.Millisecond {
				t.Errorf("too early: %v, retry after %s", got, got.RetryAfter)
			}
			if n := r.metric(t, "vitrine_codec_start_failures_total", ""); n != 1 {
				t.Errorf("%v starts failed, want 1: the second call should not have tried", n)
			}
			offset.Add(int64(100 * time.Millisecond))
			if got := r.failed(t, "ok", long); got.RetryAfter != time.Second {
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
	r := newRig(t, nil, codec.WithEnv("FAKE_CODEC_FLAG="+flag),
		codec.WithClock(func() time.Time { return time.Unix(1e9, offset.Load()) }))
	r.fails(t, "ok", long, media.CodecUnavailable)
	touch(flag)
	offset.Add(int64(time.Second))
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
	r.made(t, "ok")
	if n := r.metric(t, "vitrine_codec_children", ""); n != 1 {
		t.Errorf("%v children, want the one that Ready started", n)
	}
}

func testStartCancelledIsNoFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, codec.WithEnv("FAKE_CODEC=mute"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Render(ctx, []byte("ok"), fakeSpec(long))
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
	r := newRig(t, nil)
	got := strings.Split(r.made(t, "env"), "\n")
	want := []string{"VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "VIPS_DISC_THRESHOLD=512g", "GOMAXPROCS=1", "FAKE_CODEC=codec"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(slices.DeleteFunc(got, func(v string) bool { return strings.HasPrefix(v, "PWD=") }), want) {
		t.Errorf("a child's environment is %q, want %q", got, want)
	}
}

func testChildrenStderrIsRateLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, codec.WithClock(func() time.Time { return time.Unix(1e9, 0) }))
	pid := r.made(t, "say 3")
	eventually(t, "its lines are logged", func() bool { return r.log.FilterMessage("codec stderr").Len() == 3 })
	entry := r.log.FilterMessage("codec stderr").All()[1]
	if line := fmt.Sprint(entry.ContextMap()["line"]); !strings.HasPrefix(line, "line 1 xxx") {
		t.Errorf("the second line is %q", line)
	}
	if got := fmt.Sprint(entry.ContextMap()["pid"]); got != pid {
		t.Errorf("logged for process %s, want %s", got, pid)
	}
	r.made(t, "say 20000") // more than a pipe holds: it must be read, but not logged
	eventually(t, "the rest is counted", func() bool {
		return r.metric(t, "vitrine_codec_stderr_dropped_total", "") == 20003-200
	})
	if n := r.log.FilterMessage("codec stderr").Len(); n != 200 {
		t.Errorf("%d lines are logged, want 200", n)
	}
}

func testChildrenConcurrency(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *codec.Config) { c.Children = 3 })
	dir := t.TempDir()
	release := filepath.Join(dir, "release")
	var wg sync.WaitGroup
	pids := make([]string, 5)
	for i := range pids {
		wg.Go(func() {
			started := filepath.Join(dir, strconv.Itoa(i))
			got, err := r.Render(context.Background(), []byte("wait "+started+" "+release), fakeSpec(long))
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
	eventually(t, "three are at work", func() bool { return at() == 3 })
	if busy, slots := r.metric(t, "vitrine_codec_busy", ""), r.metric(t, "vitrine_codec_slots", ""); busy != 3 || slots != 3 {
		t.Errorf("busy %v of %v, want 3 of 3", busy, slots)
	}
	touch(release)
	wg.Wait()
	slices.Sort(pids)
	if n := len(slices.Compact(pids)); n != 3 {
		t.Errorf("%d processes worked, want 3", n)
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
	r := newRig(t, nil)
	pid := r.made(t, "ok")
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "release")
	rendered, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := r.Render(context.Background(), []byte("wait "+started+" "+release), fakeSpec(long))
		rendered <- err
	}()
	eventually(t, "the child has the image", func() bool { return exists(started) })
	go func() { closed <- r.Close(context.Background()) }()
	eventually(t, "the pool takes no more", func() bool { return r.Ready(t.Context()) != nil })
	if got := r.failed(t, "ok", long); got.Code != media.CodecUnavailable {
		t.Errorf("an image during Close gets %v, want codec_unavailable", got)
	}
	touch(release)
	if err := <-rendered; err != nil {
		t.Errorf("the image in hand: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if !gone(pid) {
		t.Error("the child is still there")
	}
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close again: %v", err)
	}
	if got := r.failed(t, "ok", long); got.Code != media.CodecUnavailable {
		t.Errorf("an image after Close gets %v, want codec_unavailable", got)
	}
	if media.FailureOf(r.Ready(t.Context())) == nil {
		t.Error("a closed pool is ready")
	}
}

func testCloseDeadlineKillsChildren(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	pid := r.made(t, "ok")
	started := filepath.Join(t.TempDir(), "started")
	rendered := make(chan error, 1)
	go func() {
		_, err := r.Render(context.Background(), []byte("hang "+started), fakeSpec(long))
		rendered <- err
	}()
	eventually(t, "the child has the image", func() bool { return exists(started) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v, want its context's error", err)
	}
	if got := media.FailureOf(<-rendered); got == nil || got.Code != media.CodecCrashed {
		t.Errorf("the image in hand: %v, want codec_crashed", got)
	}
	if !gone(pid) {
		t.Error("the child is still there")
	}
}

func testCloseChildIgnoresStdin(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *codec.Config) { c.ShutdownGrace = 20 * time.Millisecond }, codec.WithEnv("FAKE_CODEC=deaf"))
	pid := r.made(t, "ok")
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if !gone(pid) {
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
		return err != nil || strings.Contains(string(stat), ") Z ") // an orphan's zombie is init's to reap
	})
}

func TestDescriptors(t *testing.T) { //nolint:paralleltest // it counts the process's descriptors
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	cycle := func() {
		r := newRig(t, func(c *codec.Config) { c.RecycleAfter = 2 })
		for _, source := range []string{"ok", "ok", "ok"} {
			r.made(t, source)
		}
		r.fails(t, "exit", long, media.CodecCrashed)
		r.fails(t, "hang", 20*time.Millisecond, media.CodecTimeout)
		r.fails(t, "close", long, media.CodecCrashed)
		r.fails(t, "garbage", long, media.CodecCrashed)
		r.fails(t, "garbage", long, media.CodecCrashed) // by a child in safe mode
		r.fails(t, "garbage", long, media.CodecCrashed)
		bad := newRig(t, nil, codec.WithEnv("FAKE_CODEC=exit"))
		bad.fails(t, "ok", long, media.CodecUnavailable)
		for _, p := range []rig{r, bad} {
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
