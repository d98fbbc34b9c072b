package fetch_test

import (
	"context"
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

// line is what a worker needs beside a source: a catalogue that takes everything, two codecs and a store, each of which
// takes a second for its part.
type line struct {
	mu       sync.Mutex
	finished int
	others   int // ended otherwise
	busy     map[string]int
	together map[string]bool // stages that were busy at the same time as the download of another
	codecs   chan struct{}
}

func (l *line) Begin(_ context.Context, r catalog.Job, _ time.Duration) (catalog.Attempt, error) {
	url := fmt.Sprintf("http://h%d.test/%d.jpg", r.ImageID, r.ImageID)
	return catalog.Attempt{
		Job: r, Prefix: fmt.Sprintf("products/1/%d/1-x/", r.ImageID), SourceURL: url, Number: 1, Isolated: r.ImageID%9 == 0,
	}, nil
}

func (l *line) Finish(context.Context, catalog.Attempt, catalog.Result) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished++
	return nil
}

func (l *line) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others++
	return nil
}

func (l *line) Retry(context.Context, catalog.Attempt, *media.Failure, pipeline.Retry) error {
	return l.ended()
}

func (l *line) Defer(context.Context, catalog.Attempt, *media.Failure, pipeline.Retry, time.Duration) error {
	return l.ended()
}
func (l *line) Postpone(context.Context, catalog.Job, pipeline.Retry, time.Duration) error {
	return l.ended()
}
func (l *line) Fail(context.Context, catalog.Attempt, *media.Failure) error { return l.ended() }
func (l *line) Release(context.Context, catalog.Attempt) error              { return l.ended() }
func (l *line) SavePipeline(context.Context, string, []byte) error          { return nil }
func (l *line) Pipeline(context.Context, string) ([]byte, error)            { return nil, io.EOF }

func (l *line) Render(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
	l.codecs <- struct{}{}
	l.stage("render")
	<-l.codecs
	return media.Rendered{Width: 1, Height: 1, Files: []media.EncodedFile{
		{Name: "full", Format: pipeline.JPEG, Width: 1, Height: 1, Default: true, Body: []byte("made")},
	}}, nil
}

func (l *line) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return l.Render(ctx, source, spec)
}

func (l *line) Put(context.Context, string, string, io.ReadSeeker, int64) error {
	l.stage("store")
	return nil
}

// stage takes a second, and notes what else goes on.
func (l *line) stage(name string) {
	l.mu.Lock()
	l.busy[name]++
	l.mu.Unlock()
	<-time.After(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, n := range l.busy {
		if n > 0 {
			l.together[name+" and "+other] = true
		}
	}
	l.busy[name]--
}

// A worker whose sources have room for one and a half at a time gets through all the same: while one is downloaded others
// are rendered and stored, and pictures that have to be alone wait for nobody who waits for them.
func TestAWorkerWithLittleMemoryGetsThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &line{busy: map[string]int{}, together: map[string]bool{}, codecs: make(chan struct{}, 2)}
		w := newWorld()
		w.fallback = publicV4
		source := hangUp("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(mebi/4) + "\r\n\r\n" + string(make([]byte, mebi/4)))
		w.dial = func(address string) (net.Conn, error) {
			l.stage("fetch")
			return source(address)
		}
		f := newThrifty(w.network(), mebi*3/2, time.Now)
		pipe := pipeline.Default()
		pipe.Spec.Limits.MaxBytes = mebi
		worked := worker.New(worker.Deps{
			Catalog: l, Pipelines: l, Source: f, Codec: l, Objects: l, Now: time.Now, Log: zap.NewNop(),
			Breakers: worker.NewBreakers(worker.BreakerConfig{}, prometheus.NewRegistry(), zap.NewNop()),
			Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(pipe) },
		}, worker.Config{StoreBudget: time.Hour, OutcomeTimeout: time.Minute, DeferWait: 1, BusyWait: 1}, prometheus.NewRegistry())

		var all sync.WaitGroup
		work, inWork := 40, make(chan struct{}, 6)
		for i := range work {
			inWork <- struct{}{}
			all.Go(func() {
				defer func() { <-inWork }()
				if err := worked.Handle(t.Context(), event.New("ticket", "1", event.ImageRequested{
					ProductID: 1, ImageID: int64(i + 1), SourceURL: fmt.Sprintf("http://h%d.test/", i+1), PipelineHash: pipe.Hash(),
				})); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if l.finished != work || l.others != 0 {
			t.Errorf("%d pictures are finished and %d ended otherwise, want %d and none", l.finished, l.others, work)
		}
		for _, want := range []string{"render and fetch", "store and fetch", "render and store"} {
			if !l.together[want] {
				t.Errorf("never %s at the same time", want)
			}
		}
		if got := f.reserved(t); got != 0 {
			t.Errorf("%d bytes are reserved for nothing", got)
		}
	})
}
