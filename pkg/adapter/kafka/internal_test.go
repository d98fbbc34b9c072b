package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/foundation/fault"
)

func TestTracker(t *testing.T) {
	t.Parallel()
	t.Run("offset_gaps_are_allowed", testTrackerOffsetGapsAreAllowed)
	t.Run("marked_offset_equals_finished_prefix", testTrackerMarkedOffsetEqualsFinishedPrefix)
}

func testTrackerOffsetGapsAreAllowed(t *testing.T) {
	t.Parallel()
	tr := newTracker(10)
	var messages []*trackedRecord
	for _, offset := range []int64{10, 11, 15, 16} { // compaction leaves gaps
		if !tr.reserve(nil) {
			t.Fatal("no capacity")
		}
		messages = append(messages, tr.add(offset))
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

// The model is the list of all offsets and the set of finished ones. For every order of add and finish, the marked offset
// never passes an unfinished message, never decreases, and covers all finished messages before the first unfinished one.
func testTrackerMarkedOffsetEqualsFinishedPrefix(t *testing.T) {
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
			"add": func(t *rapid.T) {
				unmarked := len(all) - prefix(all, finished)
				if got, want := len(tr.capacity) < size, unmarked < size; got != want {
					t.Fatalf("capacity with %d of %d unmarked: got %t, want %t", unmarked, size, got, want)
				}
				if unmarked == size {
					if tr.reserve(full) {
						t.Fatal("a full tracker gave capacity")
					}
					t.Skip("full")
				}
				tr.reserve(nil)
				m := tr.add(next)
				all, open = append(all, m), append(open, m)
				next += rapid.Int64Range(1, 3).Draw(t, "gap")
			},
			"finish": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("all finished")
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

// prefix returns how many records are finished without a gap.
func prefix(all []*trackedRecord, finished map[int64]bool) int {
	n := 0
	for n < len(all) && finished[all[n].offset] {
		n++
	}
	return n
}

func TestPauser(t *testing.T) {
	t.Parallel()
	p := newPauser()
	stop := make(chan struct{})
	if !p.wait(stop) {
		t.Error("wait blocks without a pause")
	}
	close(stop)
	if p.wait(stop) {
		t.Error("wait returned true after stop")
	}
	p.pause()
	waited := make(chan bool, 1)
	go func() { waited <- p.wait(nil) }()
	p.resume()
	if !<-waited {
		t.Error("wait blocks after resume")
	}
}

func TestConnTracker(t *testing.T) {
	t.Parallel()
	t.Run("close_all_closes_and_refuses", testConnTrackerCloseAllClosesAndRefuses)
	t.Run("connection_dialled_during_close_all_is_closed", testConnTrackerConnectionDialledDuringCloseAllIsClosed)
}

func testConnTrackerCloseAllClosesAndRefuses(t *testing.T) {
	t.Parallel()
	var far []net.Conn
	conns := newConnTracker(func(context.Context, string, string) (net.Conn, error) {
		near, other := net.Pipe()
		far = append(far, other)
		return near, nil
	}, 0)
	first, err := conns.Dial("tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := conns.Dial("tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if len(conns.conns) != 1 {
		t.Errorf("connections known: got %d, want 1", len(conns.conns))
	}
	if got := conns.backoff(time.Second)(0, 0); got != time.Second {
		t.Errorf("backoff: got %s, want 1s", got)
	}
	conns.closeAll()
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("a closed connection can be read")
	}
	if _, err := conns.Dial("tcp", "a:1"); !errors.Is(err, errConnsClosed) {
		t.Errorf("dial after closeAll: got %v, want errConnsClosed", err)
	}
	if got := conns.backoff(time.Second)(0, 0); got != 0 {
		t.Errorf("backoff after closeAll: got %s, want none", got)
	}
	for _, c := range far {
		_ = c.Close()
	}
}

func testConnTrackerConnectionDialledDuringCloseAllIsClosed(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	var conns *connTracker
	conns = newConnTracker(func(context.Context, string, string) (net.Conn, error) {
		conns.closeAll() // during the dial
		return near, nil
	}, 0)
	if _, err := conns.Dial("tcp", "a:1"); !errors.Is(err, errConnsClosed) {
		t.Errorf("got %v, want errConnsClosed", err)
	}
	if _, err := near.Write([]byte{1}); err == nil {
		t.Error("the late connection is open")
	}
}

func TestDeadLetterLimits(t *testing.T) {
	t.Parallel()
	if got := truncate("ab\xff"+strings.Repeat("é", 10), 6); got != "abé" {
		t.Errorf("truncated: got %q, want %q", got, "abé")
	}
	kept := limitHeaders(map[string]string{"large": strings.Repeat("x", maxHeaders)})
	if len(kept) != 0 {
		t.Errorf("headers: got %d, want none of the oversized", len(kept))
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	refused := fault.New(fault.Invalid, codeRefused, "no")
	if got := classify(refused); fault.From(got) != refused {
		t.Errorf("a fault: got %v, want it unchanged", got)
	}
	if classify(nil) != nil {
		t.Error("nil: got an error")
	}
	if got := classify(errors.New("EOF")); !fault.Is(got, fault.Unavailable) {
		t.Errorf("another error: got %v, want unavailable", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopping")
	cancel(cause)
	if got := withCause(ctx, errConnsClosed); !errors.Is(got, cause) || !errors.Is(got, errConnsClosed) {
		t.Errorf("an ended context: got %v, want both errors", got)
	}
}
