package rediscache

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vitrine.io/pkg/test/port"
)

const (
	batchTimeout = 200 * time.Millisecond
	downPause    = time.Second
)

func TestBatcher(t *testing.T) {
	t.Parallel()
	t.Run("concurrent_gets_share_next_batch", testSharedBatch)
	t.Run("batch_has_at_most_64_keys", testBatchLimit)
	t.Run("get_that_waits_too_long_fails", testWaitLimit)
	t.Run("canceled_get_leaves_only_before_its_batch", testCanceledGet)
	t.Run("panic_in_send_starts_next_batch", testPanicInSend)
	t.Run("same_key_counts_once_in_a_batch", testSameKey)
	t.Run("silent_node_is_skipped_until_one_get_is_answered", testSilentNode)
	t.Run("one_unanswered_batch_does_not_stop_reads", testOneUnanswered)
}

// fixture is a batcher whose batches end when the test releases them. The reply for a key is "value of " and the key.
type fixture struct {
	*batcher
	sent    chan []string // the keys of each batch
	release chan struct{}
	silent  atomic.Bool  // the node answers no batch
	opened  atomic.Int64 // how often the node started to count as down
}

// result is what a get returned.
type result struct {
	value string
	err   error
}

func newFixture() *fixture {
	f := &fixture{sent: make(chan []string, 100), release: make(chan struct{})}
	f.batcher = &batcher{now: time.Now, timeout: batchTimeout, pause: downPause}
	f.batcher.opened = func() { f.opened.Add(1) }
	f.send = func(members []*pendingGet) bool {
		var keys []string
		for _, get := range members {
			keys = append(keys, get.key)
		}
		f.sent <- keys
		<-f.release
		for _, get := range members {
			if get.reply = redis.NewStringResult("value of "+get.key, nil); f.silent.Load() {
				get.reply = redis.NewStringResult("", os.ErrDeadlineExceeded)
			}
		}
		return !f.silent.Load()
	}
	return f
}

// goGet reads a key in the background.
func (f *fixture) goGet(ctx context.Context, key string) <-chan result {
	results := make(chan result, 1)
	go func() {
		reply, err := f.get(ctx, key, nil, time.Now())
		if err != nil {
			results <- result{err: err}
			return
		}
		results <- result{value: reply.Val(), err: reply.Err()}
	}()
	synctest.Wait()
	return results
}

func wantValue(t *testing.T, results <-chan result, want string) {
	t.Helper()
	if got := <-results; got.err != nil || got.value != want {
		t.Errorf("got %q, %v, want %q", got.value, got.err, want)
	}
}

func wantError(t *testing.T, results <-chan result, want error) {
	t.Helper()
	if got := <-results; !errors.Is(got.err, want) {
		t.Errorf("got %q, %v, want %v", got.value, got.err, want)
	}
}

func wantBatch(t *testing.T, f *fixture, want ...string) {
	t.Helper()
	if got := <-f.sent; !slices.Equal(got, want) {
		t.Errorf("got a batch of %v, want %v", got, want)
	}
}

func testSharedBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		first := f.goGet(t.Context(), "a")
		wantBatch(t, f, "a")
		second, third := f.goGet(t.Context(), "b"), f.goGet(t.Context(), "b")
		fourth := f.goGet(t.Context(), "c")
		if len(f.sent) > 0 {
			t.Error("a second batch was sent while the first was in progress")
		}
		f.release <- struct{}{}
		wantValue(t, first, "value of a")
		wantBatch(t, f, "b", "b", "c")
		f.release <- struct{}{}
		wantValue(t, second, "value of b")
		wantValue(t, third, "value of b")
		wantValue(t, fourth, "value of c")

		last := f.goGet(t.Context(), "d") // no batch is in progress: it is sent at once
		wantBatch(t, f, "d")
		f.release <- struct{}{}
		wantValue(t, last, "value of d")
	})
}

func testBatchLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		all := []<-chan result{f.goGet(t.Context(), "first")}
		<-f.sent
		for i := range 2*maxBatchKeys + 1 {
			all = append(all, f.goGet(t.Context(), strconv.Itoa(i)))
		}
		for _, want := range []int{maxBatchKeys, maxBatchKeys, 1} {
			f.release <- struct{}{}
			if got := len(<-f.sent); got != want {
				t.Errorf("got a batch of %d, want %d", got, want)
			}
		}
		f.release <- struct{}{}
		for i, results := range all {
			want := "first"
			if i > 0 {
				want = strconv.Itoa(i - 1)
			}
			wantValue(t, results, "value of "+want)
		}
	})
}

func testWaitLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		first := f.goGet(t.Context(), "first")
		<-f.sent
		late, alsoLate := f.goGet(t.Context(), "late"), f.goGet(t.Context(), "also late")
		<-time.After(batchTimeout + time.Nanosecond)
		punctual := f.goGet(t.Context(), "punctual")
		f.release <- struct{}{}
		wantValue(t, first, "value of first")
		wantBatch(t, f, "punctual")
		wantError(t, late, errBatcherBusy)
		wantError(t, alsoLate, errBatcherBusy)
		f.release <- struct{}{}
		wantValue(t, punctual, "value of punctual")

		first = f.goGet(t.Context(), "first") // the same, but no get is left for the next batch
		<-f.sent
		late = f.goGet(t.Context(), "late")
		<-time.After(batchTimeout + time.Nanosecond)
		f.release <- struct{}{}
		wantValue(t, first, "value of first")
		wantError(t, late, errBatcherBusy)
		last := f.goGet(t.Context(), "d")
		wantBatch(t, f, "d")
		f.release <- struct{}{}
		wantValue(t, last, "value of d")
	})
}

func testCanceledGet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		first := f.goGet(t.Context(), "first")
		<-f.sent
		ctx, cancel := context.WithCancel(t.Context())
		canceled, waiting := f.goGet(ctx, "canceled"), f.goGet(t.Context(), "waiting")
		cancel()
		wantError(t, canceled, context.Canceled)
		ctx, cancel = context.WithCancel(t.Context())
		sent := f.goGet(ctx, "sent")
		f.release <- struct{}{}
		wantValue(t, first, "value of first")
		wantBatch(t, f, "waiting", "sent")
		cancel()
		synctest.Wait()
		f.release <- struct{}{}
		wantValue(t, waiting, "value of waiting")
		wantValue(t, sent, "value of sent")
	})
}

func testPanicInSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		send := f.send
		proceed := make(chan struct{})
		f.send = func([]*pendingGet) bool {
			<-proceed
			panic("in send")
		}
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			_, _ = f.get(t.Context(), "first", nil, time.Now())
		}()
		synctest.Wait()
		second := f.goGet(t.Context(), "second")
		f.send = send
		close(proceed)
		if <-panicked == nil {
			t.Error("the panic did not reach the caller")
		}
		wantBatch(t, f, "second")
		f.release <- struct{}{}
		wantValue(t, second, "value of second")
	})
}

func testSameKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		all := []<-chan result{f.goGet(t.Context(), "first")}
		<-f.sent
		for i := range 3 * maxBatchKeys { // three GETs for each of maxBatchKeys keys
			all = append(all, f.goGet(t.Context(), strconv.Itoa(i%maxBatchKeys)))
		}
		other := f.goGet(t.Context(), "other")
		f.release <- struct{}{}
		if got := len(<-f.sent); got != 3*maxBatchKeys {
			t.Errorf("got a batch of %d GETs, want %d", got, 3*maxBatchKeys)
		}
		f.release <- struct{}{}
		for i, results := range all[1:] {
			wantValue(t, results, "value of "+strconv.Itoa(i%maxBatchKeys))
		}
		wantBatch(t, f, "other")
		f.release <- struct{}{}
		wantValue(t, other, "value of other")
	})
}

func testSilentNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.silent.Store(true)
		first, second := f.goGet(t.Context(), "first"), f.goGet(t.Context(), "second")
		wantBatch(t, f, "first")
		f.release <- struct{}{}
		wantError(t, first, os.ErrDeadlineExceeded)
		wantBatch(t, f, "second")
		waiting := f.goGet(t.Context(), "waiting")
		f.release <- struct{}{}
		wantError(t, second, os.ErrDeadlineExceeded)
		wantError(t, waiting, errBatcherBusy) // not sent, although it has not waited long
		wantError(t, f.goGet(t.Context(), "during the pause"), errNodeDown)

		<-time.After(downPause)
		test := f.goGet(t.Context(), "test")
		wantBatch(t, f, "test")
		wantError(t, f.goGet(t.Context(), "during the test"), errNodeDown)
		f.release <- struct{}{}
		wantError(t, test, os.ErrDeadlineExceeded)
		wantError(t, f.goGet(t.Context(), "after a failed test"), errNodeDown)
		if !f.down() || f.opened.Load() != 1 {
			t.Errorf("got down %t, %d times, want true, once", f.down(), f.opened.Load())
		}

		<-time.After(downPause)
		f.silent.Store(false)
		test = f.goGet(t.Context(), "test")
		wantBatch(t, f, "test")
		f.release <- struct{}{}
		wantValue(t, test, "value of test")
		last := f.goGet(t.Context(), "last")
		wantBatch(t, f, "last")
		f.release <- struct{}{}
		wantValue(t, last, "value of last")
	})
}

func testOneUnanswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		for _, silent := range []bool{true, false, true, false} {
			f.silent.Store(silent)
			got := f.goGet(t.Context(), "a")
			wantBatch(t, f, "a")
			f.release <- struct{}{}
			<-got
		}
		if f.down() {
			t.Error("the node counts as down, although it answered every second batch")
		}
	})
}

// countingPipeline counts its GETs.
type countingPipeline struct {
	redis.Pipeliner
	gets int
}

func (p *countingPipeline) Get(ctx context.Context, key string) *redis.StringCmd {
	p.gets++
	return p.Pipeliner.Get(ctx, key)
}

// Members of a batch that read the same key share one GET.
func TestPipelineGets(t *testing.T) {
	t.Parallel()
	mini := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	if err := mini.Set("hot", "a value"); err != nil {
		t.Fatal(err)
	}
	members := []*pendingGet{{key: "hot"}, {key: "absent"}, {key: "hot"}, {key: "hot"}}
	pipe := &countingPipeline{Pipeliner: client.Pipeline()}
	pipelineGets(t.Context(), pipe, members)
	if pipe.gets != 2 {
		t.Errorf("got %d GETs, want one for each key", pipe.gets)
	}
	if members[0].reply != members[2].reply || members[0].reply != members[3].reply || members[3].reply.Val() != "a value" {
		t.Errorf("got %v, want one reply for the same key", members)
	}
	if !errors.Is(members[1].reply.Err(), redis.Nil) {
		t.Errorf("got %v, want redis.Nil", members[1].reply.Err())
	}
}

// A GET that its node refuses is sent through the cluster.
func TestFetchBatch(t *testing.T) {
	t.Parallel()
	running := miniredis.RunT(t)
	stopped := redis.NewClient(&redis.Options{Addr: port.Addr(t), MaxRetries: -1}) // its address has no listener
	t.Cleanup(func() { _ = stopped.Close() })
	cfg := Config{
		Addrs: []string{running.Addr()}, TTL: time.Minute, MissingTTL: time.Second, TombstoneTTL: time.Minute,
		Timeout: 10 * time.Second, DialTimeout: 5 * time.Second, IOTimeout: 5 * time.Second,
		DownPause: time.Second,
	}
	cache, err := New(cfg, "v1", time.Now, func() float64 { return 0.5 }, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	if err := running.Set("stored", "a value"); err != nil {
		t.Fatal(err)
	}
	members := []*pendingGet{{key: "stored", node: stopped}, {key: "absent", node: stopped}}
	cache.fetchBatch(members)
	if got, err := members[0].reply.Result(); err != nil || got != "a value" {
		t.Errorf("got %q, %v, want a value", got, err)
	}
	if _, err := members[1].reply.Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("got %v, want redis.Nil", err)
	}
}
