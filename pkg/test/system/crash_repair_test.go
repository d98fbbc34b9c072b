package system_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/test/port"
)

// TestCrashOfWhatTellsTheCache lets a worker die before it has told the cache, and then the api, whose consumer would
// have.
func TestCrashOfWhatTellsTheCache(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between string
		at      failpoint.Name
	}{
		{"the event and Forget", failpoint.ChangeReceived},
		{"Forget and the mark", failpoint.KafkaHandled},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			api := s.doomed("api", row.at, 2) // the first event is the product's creation
			api.await()
			p, err := s.offer(row.between, s.sources.URL+drawingPath)
			s.must(err)
			for range 2 { // the cache holds the pending picture
				s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")
			}
			s.dies(s.doomed("worker", failpoint.OutcomeCommitted, 1), workers)
			s.dies(api, caches)

			api = s.start("api")
			heir := s.start("worker")
			s.ends(p.ID, untroubled)
			s.stops(heir)
			s.stops(api)
			s.caughtUp(caches, event.TopicChanged)
		})
	}
}

// TestCrashOfTheSweeper loses a request, and then the sweeper that says it once more.
func TestCrashOfTheSweeper(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between string
		at      failpoint.Name
		waiting int64
	}{
		{"the repetition's row and its COMMIT", failpoint.EditWritten, 0},
		{"the repetition's COMMIT and the next", failpoint.RepeatCommitted, 1},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			api := s.doomed("api", failpoint.DrainClaimed, 1)
			api.await()
			_, _ = s.offer(row.between, s.sources.URL+drawingPath) // the relay may be faster than the answer
			s.dies(api, caches)
			s.exec("DELETE FROM outbox") // Kafka had it, and has lost it

			s.dies(s.doomed("api", row.at, 1, "VITRINE_RESCUER_OVERDUE_AFTER=1ms", "VITRINE_RELAY_POLL=1m"), caches)
			if got := s.waiting(); got != row.waiting {
				t.Errorf("%d messages wait, want %d", got, row.waiting)
			}
			s.start("api", "VITRINE_RESCUER_OVERDUE_AFTER=1s")
			s.ends(s.named(row.between)[0], untroubled)
		})
	}
}

// TestCrashOfTheCompensator crashes it on its way with the objects of an attempt that died.
func TestCrashOfTheCompensator(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	for i, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between string
		at      failpoint.Name
		nth     int
		left    int // objects after the crash
	}{
		{"doom and the first deletion", failpoint.DeletionStarted, 1, 2},
		{"the first deletion and the second", failpoint.PrefixDeleted, 1, 0},
		{"the second deletion and the intent's end", failpoint.PrefixDeleted, 2, 0},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			prefix := fmt.Sprintf("products/1/1/%d-dead/", i)
			put := func(name string) {
				s.must(s.bucket.Put(t.Context(), prefix+name, "image/webp", strings.NewReader("x"), 1))
			}
			put("full.webp")
			put("full.jpg")
			s.exec("INSERT INTO scheduled_deletions (prefix, image_id, due_at) VALUES ($1, 1, now())", prefix)

			s.dies(s.doomed("api", row.at, row.nth), caches)
			if left := s.objects(prefix); len(left) != row.left {
				t.Errorf("after the crash there are %v, want %d", left, row.left)
			}
			if doomed := list[bool](s, "SELECT started_at IS NOT NULL FROM scheduled_deletions WHERE prefix = $1", prefix); len(doomed) != 1 ||
				!doomed[0] {
				t.Errorf("after the crash the intent is doomed: %v", doomed)
			}
			put("late.webp") // an upload that was on its way all the time
			s.start("api")
			s.comes(prefix)
			if left := s.objects(prefix); len(left) != 0 {
				t.Errorf("in the end there are %v", left)
			}
		})
	}
}

// sleeps waits until a program has stopped itself, and lets its group believe that it is dead.
func (s *stage) sleeps(r *running, group string) {
	s.t.Helper()
	eventually(s.t, r.Name+" stops", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID()))
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(string(text), ") ") // pid (name) state
		if !strings.HasPrefix(rest, "T") {
			return errors.New("it is in state " + rest[:1])
		}
		return nil
	})
	s.expel(group)
}

// wakes lets a program that has stopped go on.
func (s *stage) wakes(r *running) {
	s.t.Helper()
	s.must(syscall.Kill(r.PID(), syscall.SIGCONT))
}

// zombie starts a program that will stop at a step.
func (s *stage) zombie(program string, at failpoint.Name) *running {
	s.t.Helper()
	r := s.launch(program, "VITRINE_FAILPOINT="+string(at)+"=stop", "VITRINE_KAFKA_CLIENT_ID="+victim)
	s.t.Cleanup(func() { _ = syscall.Kill(r.PID(), syscall.SIGCONT) }) // so that it can be stopped in the orderly way
	return r
}

// TestZombieWorker lets a worker sleep at a step until another has finished its picture, and wake up: it finds that it is
// superseded, changes nothing, and what it stores late is deleted.
func TestZombieWorker(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("api")
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		after string
		at    failpoint.Name
	}{
		{"Begin", failpoint.WorkerBegun},
		{"the download", failpoint.WorkerFetched},
		{"rendering", failpoint.WorkerRendered},
		{"storing", failpoint.WorkerStored},
	} {
		t.Run(row.after, func(t *testing.T) {
			s := s.in(t)
			p, err := s.offer("asleep after "+row.after, s.sources.URL+drawingPath)
			s.must(err)
			sleeper := s.zombie("worker", row.at)
			s.sleeps(sleeper, workers)
			heir := s.start("worker")
			eventually(t, "the heir finishes", func() error {
				if p := s.settled(p.ID); p.ImageStatus != "ready" {
					return fmt.Errorf("it is %s", p.ImageStatus)
				}
				return nil
			})
			before := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")

			s.wakes(sleeper)
			s.logged(sleeper, "attempt superseded")
			s.ends(p.ID, begunAgain)
			after := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")
			if string(before.Body) != string(after.Body) {
				t.Errorf("the sleeper has changed\n%s\ninto\n%s", before.Body, after.Body)
			}
			s.stops(sleeper)
			s.stops(heir)
		})
	}
}

// TestZombieRelay lets an api sleep with messages that Kafka has and whose rows are locked. Postgres ends its transaction;
// another sends them again; what the sleeper deletes when it wakes up is nobody's loss.
func TestZombieRelay(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	sleeper := s.zombie("api", failpoint.RelayPublished)
	sleeper.await()
	_, _ = s.offer("Lamp", s.sources.URL+drawingPath) // it may fall asleep before it has answered
	s.sleeps(sleeper, caches)

	s.env["VITRINE_HTTP_ADDR"] = port.Addr(t) // the sleeper holds the other
	s.url = "http://" + s.env["VITRINE_HTTP_ADDR"]
	s.start("api")
	s.start("worker")
	s.ends(s.named("Lamp")[0], untroubled)
	s.wakes(sleeper)
	s.logged(sleeper, "relaying failed")
	again, err := s.offer("Shade", s.sources.URL+drawingPath)
	s.must(err)
	s.ends(again.ID, untroubled)
	s.ends(s.named("Lamp")[0], untroubled)
}

// TestZombieCompensator lets one sleep between doom and deletion, while another deletes twice and forgets the intent. No
// prefix is ever used twice, so what the sleeper deletes when it wakes up is nobody's.
func TestZombieCompensator(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("worker")
	const prefix = "products/1/1/1-dead/"
	s.must(s.bucket.Put(t.Context(), prefix+"full.webp", "image/webp", strings.NewReader("x"), 1))
	s.exec("INSERT INTO scheduled_deletions (prefix, image_id, due_at) VALUES ($1, 1, now())", prefix)
	sleeper := s.zombie("api", failpoint.DeletionStarted)
	s.sleeps(sleeper, caches)

	s.env["VITRINE_HTTP_ADDR"] = port.Addr(t)
	s.url = "http://" + s.env["VITRINE_HTTP_ADDR"]
	s.start("api")
	p, err := s.offer("Lamp", s.sources.URL+drawingPath)
	s.must(err)
	if p.ID != 1 || p.Images[0].ID != 1 {
		t.Fatalf("the product is %+v, and was meant to be the one that the objects stand beside", p)
	}
	s.ends(p.ID, untroubled)
	s.wakes(sleeper)
	s.logged(sleeper, "objects deleted")
	s.ends(p.ID, untroubled)
}
