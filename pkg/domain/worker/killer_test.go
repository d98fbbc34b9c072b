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
)

type rendering = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error)

// dies is a codec that the picture kills.
func dies(code media.Code) rendering {
	return func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, fmt.Errorf("render: %w", media.Fail(code, "a kill", nil))
	}
}

// knowing lets the attempt know of content that has killed a codec.
func (w *world) knowing(killer string) {
	begin := w.begin
	w.begin = func(ctx context.Context, r catalog.Job) (catalog.Attempt, error) {
		a, err := begin(ctx, r)
		a.PoisonSHA256 = killer
		return a, err
	}
}

func TestAKillIsBlamedOnTheContent(t *testing.T) {
	t.Parallel()
	for code, want := range map[media.Code]string{
		media.CodecCrashed: "ab", media.CodecTimeout: "ab", media.Corrupt: "", media.CodecUnavailable: "",
	} {
		w := newWorld(t)
		w.render = dies(code)
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		if w.failure.Code != code || w.failure.Content != want || w.failure.Detail != "a kill" {
			t.Errorf("%s: told %+v, want the content %q", code, w.failure, want)
		}
	}
}

func TestTheSecondTryOfAKillerIsMadeWithCare(t *testing.T) {
	t.Parallel()

	t.Run("and may succeed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.knowing("ab")
		w.again, w.render = w.render, dies(media.CodecCrashed)
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Error(err)
		}
		if want := []string{"begin", "finish"}; !slices.Equal(w.told, want) {
			t.Errorf("told %v, want %v", w.told, want)
		}
	})

	t.Run("and is the last if that kills, too, in whatever way", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.knowing("ab")
		w.again = dies(media.CodecTimeout)
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Error(err)
		}
		if f := w.failure; f.Code != media.CodecCrashed || f.Content != "ab" || !strings.HasSuffix(f.Detail, "a kill") {
			t.Errorf("told %+v, want codec_crashed", f)
		}
	})

	t.Run("but other content is not", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.knowing("cd")
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Error(err)
		}
		if want := []string{"begin", "finish"}; !slices.Equal(w.told, want) {
			t.Errorf("told %v, want %v", w.told, want)
		}
	})
}

// TestTwoKillsInTwoProcessesParkThePicture has each try made by a worker of its own, which shares only the database.
func TestTwoKillsInTwoProcessesParkThePicture(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	content, careful := "ab", 0
	handle := func() catalog.Image {
		t.Helper()
		w := newWorld(t)
		w.fetch = func(context.Context, string) (worker.Download, error) {
			return worker.Download{Body: []byte("source"), SHA256: content}, nil
		}
		w.render = dies(media.CodecTimeout)
		w.again = func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
			careful++
			return dies(media.CodecTimeout)(ctx, source, spec)
		}
		w.deps.Catalog = s.Service
		img := s.image()
		m := event.New(img.JobID, "1", event.ImageRequested{
			ProductID: int64(s.product.ID), ImageID: int64(img.ID), SourceURL: img.SourceURL, PipelineHash: img.PipelineHash,
		})
		s.must(worker.New(w.deps, worldConfig(), prometheus.NewRegistry()).Handle(t.Context(), m))
		return s.image()
	}
	if img := handle(); img.Status != catalog.Pending || img.Attempts != 1 || img.PoisonSHA256 != "ab" {
		t.Errorf("after a kill: %+v, want it pending, and the content known", img)
	}
	content = "cd"
	if img := handle(); img.Status != catalog.Pending || img.Attempts != 2 || img.PoisonSHA256 != "cd" || careful != 0 {
		t.Errorf("after a kill by other content, with %d careful tries: %+v, want it pending", careful, img)
	}
	if img := handle(); img.Status != catalog.Failed || img.Attempts != 3 || img.ErrorCode != media.CodecCrashed ||
		careful != 1 {
		t.Errorf("after its second kill, with %d careful tries: %+v, want it failed as codec_crashed", careful, img)
	}
}

func TestCircuitsAlsoSeeSecondTries(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	cfg := breakerConfig()
	cfg.Faults = 1
	c := worker.NewBreakers(cfg, reg, newWorld(t).deps.Log, worker.Probe{Dependency: worker.Encoder})
	w := newWorld(t)
	w.knowing("ab")
	w.again = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, media.Fail(media.CodecUnavailable, "none", errors.New("no"))
	}
	w.watch(c)
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if got := openCircuits(t, reg); got != worker.Encoder {
		t.Errorf("the circuit of %q is open, want the codec's", got)
	}
}
