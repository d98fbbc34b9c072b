package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/foundation/fault"
)

func TestOnlyTheFinishedPrefixIsMarked(t *testing.T) {
	t.Parallel()
	tr := newTracker(10)
	var messages []*trackedRecord
	for _, offset := range []int64{10, 11, 15, 16} { // compaction leaves gaps
		if !tr.reserve(nil) {
			t.Fatal("no room")
		}
		messages = append(messages, tr.take(offset))
	}
	for _, step := range []struct {
		message int
		next    int64
		grew    bool
	}{{2, 0, false}, {0, 11, true}, {1, 16, true}, {3, 17, true}} {
		next, grew := tr.finish(messages[step.message])
		if next != step.next || grew != step.grew {
			t.Errorf("finish %d: got %d, %t, want %d, %t", messages[step.message].offset, next, grew, step.next, step.grew)
		}
	}
}

// The model is the plainest one: all offsets and which are finished. In any order of taking and finishing, what is marked
// is never beyond an unfinished message, never goes back, and is all of the prefix.
func TestWhatIsMarkedIsExactlyTheFinishedPrefix(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const size = 8
		tr := newTracker(size)
		var all, open []*trackedRecord
		finished := make(map[int64]bool)
		next, marked := rapid.Int64Range(0, 1000).Draw(t, "first"), int64(-1)
		full := make(chan struct{})
		close(full)
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				waiting := len(all) - prefix(all, finished)
				if got, want := len(tr.room) < size, waiting < size; got != want {
					t.Fatalf("room with %d of %d waiting: got %t, want %t", waiting, size, got, want)
				}
				if waiting == size {
					if tr.reserve(full) {
						t.Fatal("a full tracker gave room")
					}
					t.Skip("full")
				}
				tr.reserve(nil)
				m := tr.take(next)
				all, open = append(all, m), append(open, m)
				next += rapid.Int64Range(1, 3).Draw(t, "gap")
			},
			"finish": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("nothing open")
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				before := prefix(all, finished)
				finished[open[i].offset] = true
				got, grew := tr.finish(open[i])
				open = slices.Delete(open, i, i+1)
				after := prefix(all, finished)
				if grew != (after > before) {
					t.Fatalf("grew: got %t, want %t", grew, after > before)
				}
				if !grew {
					return
				}
				if want := all[after-1].offset + 1; got != want || got <= marked {
					t.Fatalf("marked: got %d, want %d, above %d", got, want, marked)
				}
				marked = got
			},
		})
	})
}

// prefix returns how many of all are finished without a gap.
func prefix(all []*trackedRecord, finished map[int64]bool) int {
	n := 0
	for n < len(all) && finished[all[n].offset] {
		n++
	}
	return n
}

func TestALaneHoldsOneAtATimeAndIsForgottenAfterwards(t *testing.T) {
	t.Parallel()
	l := newKeyedMutex()
	var inside, most, waits atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			leave := l.lock("a", nil, func() { waits.Add(1) })
			most.Store(max(most.Load(), inside.Add(1)))
			inside.Add(-1)
			leave()
		})
	}
	wg.Wait()
	if most.Load() != 1 || len(l.open) != 0 {
		t.Errorf("inside at once: got %d, want 1; lanes left: %d, want 0", most.Load(), len(l.open))
	}
	stop := make(chan struct{})
	close(stop)
	leave := l.lock("b", nil, nil)
	if l.lock("b", stop, func() {}) != nil {
		t.Error("a taken lane was entered")
	}
	leave()
	if len(l.open) != 0 {
		t.Errorf("lanes left after giving up: got %d, want 0", len(l.open))
	}
}

func TestAnEndedSessionPassesNoGate(t *testing.T) {
	t.Parallel()
	g := newPauser()
	stop := make(chan struct{})
	if !g.wait(stop) {
		t.Error("an open gate holds")
	}
	close(stop)
	if g.wait(stop) {
		t.Error("an ended session passed the open gate")
	}
	g.pause()
	held := make(chan bool, 1)
	go func() { held <- g.wait(nil) }()
	g.resume()
	if !<-held {
		t.Error("the opened gate holds")
	}
}

func TestACutWireEndsWhatIsOpenAndRefusesTheRest(t *testing.T) {
	t.Parallel()
	var far []net.Conn
	w := newConnTracker(func(context.Context, string, string) (net.Conn, error) {
		near, other := net.Pipe()
		far = append(far, other)
		return near, nil
	}, 0)
	closed, err := w.Dial("tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	open, err := w.Dial("tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	if len(w.conns) != 1 {
		t.Errorf("connections known: got %d, want 1", len(w.conns))
	}
	if got := w.backoff(time.Second)(0, 0); got != time.Second {
		t.Errorf("backoff: got %s, want 1s", got)
	}
	w.cut()
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a cut connection can be read")
	}
	if _, err := w.Dial("tcp", "a:1"); !errors.Is(err, errCut) {
		t.Errorf("dial on a cut wire: got %v, want errCut", err)
	}
	if got := w.backoff(time.Second)(0, 0); got != 0 {
		t.Errorf("backoff on a cut wire: got %s, want none", got)
	}
	for _, c := range far {
		_ = c.Close()
	}
}

func TestADialThatOutlivesTheCutIsClosed(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	var w *connTracker
	w = newConnTracker(func(context.Context, string, string) (net.Conn, error) {
		w.cut() // while the dial is under way
		return near, nil
	}, 0)
	if _, err := w.Dial("tcp", "a:1"); !errors.Is(err, errCut) {
		t.Errorf("got %v, want errCut", err)
	}
	if _, err := near.Write([]byte{1}); err == nil {
		t.Error("the late connection was left open")
	}
}

func TestADeadRecordKeepsOnlyWhatFits(t *testing.T) {
	t.Parallel()
	if got := truncate("ab\xff"+strings.Repeat("é", 10), 6); got != "abé" {
		t.Errorf("shortened: got %q, want %q", got, "abé")
	}
	kept := limitHeaders(map[string]string{"large": strings.Repeat("x", maxHeaders)})
	if len(kept) != 0 {
		t.Errorf("headers: got %d, want none of the oversized", len(kept))
	}
}

func TestAFaultIsClassifiedOnce(t *testing.T) {
	t.Parallel()
	refused := fault.New(fault.Invalid, codeRefused, "no")
	if got := classify(refused); fault.From(got) != refused {
		t.Errorf("a fault: got %v, want it as it is", got)
	}
	if classify(nil) != nil {
		t.Error("no error became one")
	}
	if got := classify(errors.New("EOF")); !fault.Is(got, fault.Unavailable) {
		t.Errorf("anything else: got %v, want unavailable", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopping")
	cancel(cause)
	if got := withCause(ctx, errCut); !errors.Is(got, cause) || !errors.Is(got, errCut) {
		t.Errorf("an ended context: got %v, want both reasons", got)
	}
}
