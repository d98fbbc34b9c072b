package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// fakeBackend is everything that a worker needs besides a source: a catalogue, two codecs and an object store. Each stage
// lasts one second.
type fakeBackend struct {
	mu       sync.Mutex
	finished int
	others   int             // outcomes other than Finish
	busy     map[string]int  // running stages by name
	overlaps map[string]bool // pairs of stages that ran at the same time
	codecs   chan struct{}
}

func (b *fakeBackend) Begin(_ context.Context, r catalog.Job, _ time.Duration) (catalog.Attempt, error) {
	url := fmt.Sprintf("http://h%d.test/%d.jpg", r.ImageID, r.ImageID)
	return catalog.Attempt{
		Job: r, Prefix: fmt.Sprintf("products/1/%d/1-x/", r.ImageID), SourceURL: url, Number: 1, Isolated: r.ImageID%9 == 0,
	}, nil
}

func (b *fakeBackend) Finish(context.Context, catalog.Attempt, catalog.Result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished++
	return nil
}

func (b *fakeBackend) endOtherwise() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.others++
	return nil
}

func (b *fakeBackend) Retry(context.Context, catalog.Attempt, *media.Failure, pipeline.Retry) error {
	return b.endOtherwise()
}

func (b *fakeBackend) Defer(context.Context, catalog.Attempt, *media.Failure, pipeline.Retry, time.Duration) error {
	return b.endOtherwise()
}
func (b *fakeBackend) Postpone(context.Context, catalog.Job, *media.Failure, pipeline.Retry, time.Duration) error {
	return b.endOtherwise()
}
func (b *fakeBackend) Fail(context.Context, catalog.Attempt, *media.Failure) error {
	return b.endOtherwise()
}
func (b *fakeBackend) Release(context.Context, catalog.Attempt) error { return b.endOtherwise() }
func (b *fakeBackend) Skip(context.Context, catalog.Attempt) error    { return b.endOtherwise() }
func (b *fakeBackend) ForgetOriginal(context.Context, catalog.ProductID, catalog.ImageID, string) error {
	return b.endOtherwise()
}
func (b *fakeBackend) SavePipeline(context.Context, string, []byte) error { return nil }
func (b *fakeBackend) Pipeline(context.Context, string) ([]byte, error)   { return nil, io.EOF }

func (b *fakeBackend) Render(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
	b.codecs <- struct{}{}
	b.stage("render")
	<-b.codecs
	return media.Rendered{Width: 1, Height: 1, Files: []media.EncodedFile{
		{Name: "full", Format: pipeline.JPEG, Width: 1, Height: 1, Default: true, Body: []byte("made")},
	}}, nil
}

func (b *fakeBackend) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return b.Render(ctx, source, spec)
}

func (b *fakeBackend) Compare(context.Context, []byte, pipeline.Spec, []media.Comparison) ([]media.Score, error) {
	return nil, errors.New("unexpected call of Compare")
}

func (b *fakeBackend) Put(context.Context, string, string, io.ReadSeeker, int64) error {
	b.stage("store")
	return nil
}

func (b *fakeBackend) PutNoStore(context.Context, string, string, io.ReadSeeker, int64) error {
	return errors.New("unexpected call of PutNoStore")
}

func (b *fakeBackend) Read(context.Context, string, int64) ([]byte, error) {
	return nil, errors.New("unexpected call of Read")
}

// stage lasts one second, and records which other stages run.
func (b *fakeBackend) stage(name string) {
	b.mu.Lock()
	b.busy[name]++
	b.mu.Unlock()
	<-time.After(time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	for other, n := range b.busy {
		if n > 0 {
			b.overlaps[name+" and "+other] = true
		}
	}
	b.busy[name]--
}

// The budget is one and a half times the maximum size of a source. All images finish, including isolated ones, and the
// stages of different images overlap.
func TestWorkerWithSmallBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{busy: map[string]int{}, overlaps: map[string]bool{}, codecs: make(chan struct{}, 2)}
		fake := newFakeNet()
		fake.fallback = publicV4
		source := hangUp("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(mebi/4) + "\r\n\r\n" + string(make([]byte, mebi/4)))
		fake.dial = func(address string) (net.Conn, error) {
			b.stage("fetch")
			return source(address)
		}
		f := newLimited(fake.network(), mebi*3/2, time.Now)
		pipe := pipeline.Default()
		pipe.Spec.Limits.MaxBytes = mebi
		handler := worker.New(worker.Deps{
			Catalog: b, Pipelines: b, Source: f, Codec: b, Objects: b, Now: time.Now, Log: zap.NewNop(),
			Breakers: worker.NewBreakers(worker.BreakerConfig{}, prometheus.NewRegistry(), zap.NewNop()),
			Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(pipe) },
		}, worker.Config{StoreTimeout: time.Hour, OutcomeTimeout: time.Minute, DeferDelay: 1, SlotWait: time.Minute, BusyDelay: 1},
			prometheus.NewRegistry())

		var all sync.WaitGroup
		images, running := 40, make(chan struct{}, 6)
		for i := range images {
			running <- struct{}{}
			all.Go(func() {
				defer func() { <-running }()
				if err := handler.Handle(t.Context(), event.New("job", "1", event.ImageRequested{
					ProductID: 1, ImageID: int64(i + 1), SourceURL: fmt.Sprintf("http://h%d.test/", i+1), PipelineHash: pipe.Hash(),
				})); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if b.finished != images || b.others != 0 {
			t.Errorf("%d images finished and %d had other outcomes, want %d and 0", b.finished, b.others, images)
		}
		for _, want := range []string{"render and fetch", "store and fetch", "render and store"} {
			if !b.overlaps[want] {
				t.Errorf("%s never overlap", want)
			}
		}
		if got := f.reserved(t); got != 0 {
			t.Errorf("%d bytes are still reserved", got)
		}
	})
}
