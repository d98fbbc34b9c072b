package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// TestMain makes this test binary run as the program if it is called by the program's name.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "codecstub-") {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// pool returns a codec pool whose program is this test binary under the given name.
func pool(t *testing.T, name string, children int) *codec.Pool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	p, err := codec.New(codec.Config{
		Path: link, Children: children, RecycleAfter: 1000, MaxRSS: 1 << 40, AddressSpace: 1 << 30, StartTimeout: time.Minute,
		StartBackoff: time.Second, ShutdownGrace: 20 * time.Second, Sandbox: "on", Preload: "none",
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// photo is a source of 8 x 6 pixels.
func photo(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 6))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func everyFormat() pipeline.Spec {
	spec := pipeline.Default().Spec
	for i := range spec.Renditions {
		spec.Renditions[i].Formats = []pipeline.Output{
			{Format: pipeline.JPEG, Quality: 80}, {Format: pipeline.WebP, Quality: 79},
			{Format: pipeline.AVIF, Quality: 63}, {Format: pipeline.PNG},
		}
	}
	return spec
}

func TestRender(t *testing.T) {
	t.Parallel()
	t.Run("every_format", testRenderEveryFormat)
	t.Run("children_wait_concurrently", testRenderChildrenWaitConcurrently)
	t.Run("unsupported_format", testRenderUnsupportedFormat)
}

func testRenderEveryFormat(t *testing.T) {
	t.Parallel()
	p := pool(t, "codecstub-30ms", 1)
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	rendered, err := p.Render(t.Context(), photo(t), everyFormat())
	if err != nil {
		t.Fatal(err)
	}
	if elapsed := time.Since(start); elapsed < 30*time.Millisecond {
		t.Errorf("an image was rendered in %s, want at least 30ms", elapsed)
	}
	if rendered.Format != pipeline.PNG || rendered.Width != 8 || rendered.Height != 6 || len(rendered.Files) != 3*4 {
		t.Errorf("got %s, %d x %d, %d outputs", rendered.Format, rendered.Width, rendered.Height, len(rendered.Files))
	}
	for _, o := range rendered.Files {
		head, format, err := image.DecodeConfig(bytes.NewReader(o.Body))
		if o.Format == pipeline.AVIF { // the standard library does not read it: a box of type ftyp with brand avif
			format, head.Width, head.Height, err = "avif", 1, 1, nil
			if string(o.Body[4:12]) != "ftypavif" {
				t.Errorf("%s: % x is no AVIF", o.Name, o.Body[:12])
			}
		}
		if err != nil || format != string(o.Format) || head.Width != o.Width || head.Height != o.Height {
			t.Errorf("%s as %s: got %s of %d x %d, %v", o.Name, o.Format, format, head.Width, head.Height, err)
		}
	}
}

func testRenderChildrenWaitConcurrently(t *testing.T) {
	t.Parallel()
	const children = 16
	p := pool(t, "codecstub-500ms", children)
	var all sync.WaitGroup
	start := time.Now()
	for range children {
		all.Go(func() {
			if _, err := p.Render(t.Context(), photo(t), everyFormat()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if elapsed := time.Since(start); elapsed > children*500*time.Millisecond/2 {
		t.Errorf("%d images of 500ms in %d children were rendered in %s", children, children, elapsed)
	}
}

func testRenderUnsupportedFormat(t *testing.T) {
	t.Parallel()
	p := pool(t, "codecstub-0s", 1)
	_, err := p.Render(t.Context(), []byte("<html>not found</html>"), everyFormat())
	if why := media.FailureOf(err); why == nil || why.Code != media.UnsupportedFormat {
		t.Errorf("got %v, want %s", err, media.UnsupportedFormat)
	}
	if _, err := p.Render(t.Context(), photo(t), everyFormat()); err != nil {
		t.Errorf("the next image: %v", err)
	}
}

func TestPauseOf(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]time.Duration{
		"/usr/local/bin/codecstub-250ms": 250 * time.Millisecond, "my-codecstub-1.5s": 1500 * time.Millisecond,
		"/opt/a-2s/codecstub": defaultPause, "my-codecstub": defaultPause, "codecstub-": defaultPause, "codecstub-0s": 0,
	} {
		if got, err := pauseOf(program); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", program, got, err, want)
		}
	}
	if got, err := pauseOf("codecstub-250"); err == nil || !strings.Contains(err.Error(), "codecstub-250") {
		t.Errorf("a number without a unit: got %s, %v", got, err)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("waits_once_for_each_image", testRunWaitsOnceForEachImage)
	t.Run("context_ends", testRunContextEnds)
	t.Run("arguments", testRunArguments)
}

func testRunWaitsOnceForEachImage(t *testing.T) {
	t.Parallel()
	// Two requests as the parent writes them: length, type, payload.
	frame := func(kind byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload) >> 8), byte(len(payload)), kind}) + payload
	}
	request := frame('Q', `{"seq":1,"spec":{"renditions":[]}}`) + frame('S', "no image")
	var paused []time.Duration
	var out bytes.Buffer
	args := []string{"codecstub-7ms", "--address-space=1"}
	err := run(t.Context(), args, strings.NewReader(request+request), &out, io.Discard,
		func(d time.Duration) <-chan time.Time {
			paused = append(paused, d)
			return time.After(0)
		})
	if err != nil || len(paused) != 2 || paused[0] != 7*time.Millisecond {
		t.Errorf("got %v, pauses %v", err, paused)
	}
	if got := strings.Count(out.String(), "unsupported_format"); got != 2 {
		t.Errorf("got %d answers in %q", got, out.String())
	}
}

func testRunContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	request := "\x00\x00\x00\x02Q{}" + "\x00\x00\x00\x01S?"
	err := run(ctx, []string{"codecstub-1h"}, strings.NewReader(request), io.Discard, io.Discard,
		func(time.Duration) <-chan time.Time {
			cancel()
			return nil
		})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func testRunArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"codecstub", "--fast"}, {"codecstub-5"}} {
		if err := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard, nil); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	var help bytes.Buffer
	err := run(t.Context(), []string{"codecstub", "--help"}, strings.NewReader(""), io.Discard, &help, nil)
	if err != nil || !strings.Contains(help.String(), "address-space") {
		t.Errorf("got %v and %q", err, help.String())
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	rendered, err := answer(photo(t), everyFormat())
	if err != nil {
		t.Fatal(err)
	}
	defaults := 0
	for _, o := range rendered.Files {
		if len(o.Body) == 0 || len(o.Body) > 1024 {
			t.Errorf("%s: %d bytes", o.Format, len(o.Body))
		}
		if o.Format != pipeline.AVIF {
			if _, _, err := image.Decode(bytes.NewReader(o.Body)); err != nil {
				t.Errorf("%s: %v", o.Format, err)
			}
		}
		if o.Default {
			defaults++
		}
	}
	if defaults != 1 {
		t.Errorf("%d outputs are the default, want 1", defaults)
	}
}
