package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

type rendering = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error)

// losesCodec returns a rendering that fails with code.
func losesCodec(code media.Code) rendering {
	return func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, fmt.Errorf("render: %w", media.Fail(code, "lost", nil))
	}
}

// withPoison sets the poison content of attempts.
func (w *fixture) withPoison(sha256 string) {
	begin := w.begin
	w.begin = func(ctx context.Context, r catalog.Job) (catalog.Attempt, error) {
		a, err := begin(ctx, r)
		a.PoisonSHA256 = sha256
		return a, err
	}
}

func TestPoisonContent(t *testing.T) {
	t.Parallel()
	for code, want := range map[media.Code]string{
		media.CodecCrashed: "ab", media.CodecTimeout: "ab", media.Corrupt: "", media.CodecUnavailable: "",
	} {
		w := newFixture(t)
		w.render = losesCodec(code)
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		if w.failure.Code != code || w.failure.Content != want || w.failure.Detail != "lost" {
			t.Errorf("%s: got %+v, want the content %q", code, w.failure, want)
		}
	}
}

func TestSafeMode(t *testing.T) {
	t.Parallel()
	t.Run("success_finishes_the_image", testSafeModeSuccessFinishesTheImage)
	t.Run("second_loss_is_codec_crashed", testSafeModeSecondLossIsCodecCrashed)
	t.Run("other_content_renders_normally", testSafeModeOtherContentRendersNormally)
}

func testSafeModeSuccessFinishesTheImage(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.withPoison("ab")
	w.renderSafe, w.render = w.render, losesCodec(media.CodecCrashed)
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if want := []string{"begin", "finish"}; !slices.Equal(w.calls, want) {
		t.Errorf("called %v, want %v", w.calls, want)
	}
}

func testSafeModeSecondLossIsCodecCrashed(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.withPoison("ab")
	w.renderSafe = losesCodec(media.CodecTimeout)
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if f := w.failure; f.Code != media.CodecCrashed || f.Content != "ab" || !strings.HasSuffix(f.Detail, "lost") {
		t.Errorf("got %+v, want codec_crashed", f)
	}
}

func testSafeModeOtherContentRendersNormally(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.withPoison("cd")
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if want := []string{"begin", "finish"}; !slices.Equal(w.calls, want) {
		t.Errorf("called %v, want %v", w.calls, want)
	}
}

// TestPoisonContentAcrossWorkers uses a new worker for each attempt; they share only the database.
func TestPoisonContentAcrossWorkers(t *testing.T) {
	t.Parallel()
	c := catalogtest.New(t, 1)
	content, safeRenders := "ab", 0
	handle := func() catalog.Image {
		t.Helper()
		w := newFixture(t)
		w.fetch = func(context.Context, string) (worker.Download, error) {
			return worker.Download{Body: []byte("source"), SHA256: content}, nil
		}
		w.render = losesCodec(media.CodecTimeout)
		w.renderSafe = func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
			safeRenders++
			return losesCodec(media.CodecTimeout)(ctx, source, spec)
		}
		w.deps.Catalog = c.Service
		img := c.Image(0)
		m := event.New(img.JobID, "1", event.ImageRequested{
			ProductID: int64(c.Product.ID), ImageID: int64(img.ID), SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
		})
		c.Must(worker.New(w.deps, workerConfig(), prometheus.NewRegistry()).Handle(t.Context(), m))
		return c.Image(0)
	}
	if img := handle(); img.Status != catalog.Pending || img.Attempts != 1 || img.PoisonSHA256 != "ab" {
		t.Errorf("after a lost codec: %+v, want it pending with the content", img)
	}
	content = "cd"
	if img := handle(); img.Status != catalog.Pending || img.Attempts != 2 || img.PoisonSHA256 != "cd" || safeRenders != 0 {
		t.Errorf("after a codec lost to other content, with %d safe renders: %+v, want it pending", safeRenders, img)
	}
	if img := handle(); img.Status != catalog.Failed || img.Attempts != 3 || img.ErrorCode != media.CodecCrashed ||
		safeRenders != 1 {
		t.Errorf("after the second loss, with %d safe renders: %+v, want it failed as codec_crashed", safeRenders, img)
	}
}

func TestBreakersObserveSafeMode(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	cfg := breakerConfig()
	cfg.Faults = 1
	c := worker.NewBreakers(cfg, reg, newFixture(t).deps.Log, worker.Probe{Dependency: worker.DependencyCodec})
	w := newFixture(t)
	w.withPoison("ab")
	w.renderSafe = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, media.Fail(media.CodecUnavailable, "none", errors.New("no"))
	}
	w.useBreakers(c)
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if got := openBreakers(t, reg); got != worker.DependencyCodec {
		t.Errorf("open: %q, want the codec", got)
	}
}
