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

// TestCacheInvalidationCrash crashes a worker before it invalidates the cache, and then the api whose consumer would
// invalidate it.
func TestCacheInvalidationCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name string
		at   failpoint.Name
	}{
		{"before_invalidation", failpoint.ChangeReceived},
		{"after_invalidation", failpoint.KafkaHandled},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			api := s.startWithFailpoint("api", row.at, 2) // the first event is the product's creation
			api.await()
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			for range 2 { // fills the cache with the pending image
				s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")
			}
			s.awaitCrash(s.startWithFailpoint("worker", failpoint.OutcomeCommitted, 1), workerGroup)
			s.awaitCrash(api, cacheGroup)

			api = s.start("api")
			successor := s.start("worker")
			s.checkOutcome(p.ID, undisturbed)
			s.stop(successor)
			s.stop(api)
			s.awaitNoLag(cacheGroup, event.TopicChanged)
		})
	}
}

// TestRescuerCrash loses a job's message and crashes the rescuer while it republishes the job.
func TestRescuerCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name   string
		at     failpoint.Name
		outbox int64
	}{
		{"before_commit", failpoint.EditWritten, 0},
		{"after_commit", failpoint.RepublishCommitted, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			api := s.startWithFailpoint("api", failpoint.BatchClaimed, 1)
			api.await()
			_, _ = s.tryPost(row.name, s.sources.URL+drawingPath) // the relay may crash the api before the response
			s.awaitCrash(api, cacheGroup)
			s.exec("DELETE FROM outbox") // as if Kafka had lost the message

			api = s.startWithFailpoint("api", row.at, 1, "VITRINE_RESCUER_OVERDUE_AFTER=1ms", "VITRINE_RELAY_POLL=1m")
			s.awaitCrash(api, cacheGroup)
			if got := s.outboxSize(); got != row.outbox {
				t.Errorf("%d messages are in the outbox, want %d", got, row.outbox)
			}
			s.start("api", "VITRINE_RESCUER_OVERDUE_AFTER=1s")
			s.checkOutcome(s.productIDs(row.name)[0], undisturbed)
		})
	}
}

// TestGarbageCollectorCrash crashes the garbage collector while it deletes the objects of a crashed attempt.
func TestGarbageCollectorCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	for i, row := range []struct { //nolint:paralleltest // subtests share one system
		name string
		at   failpoint.Name
		nth  int
		left int // objects after the crash
	}{
		{"deletion_started", failpoint.DeletionStarted, 1, 2},
		{"first_pass_done", failpoint.PrefixDeleted, 1, 0},
		{"second_pass_done", failpoint.PrefixDeleted, 2, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			prefix := fmt.Sprintf("products/1/1/%d-dead/", i)
			put := func(name string) {
				s.must(s.bucket.Put(t.Context(), prefix+name, "image/webp", strings.NewReader("x"), 1))
			}
			put("full.webp")
			put("full.jpg")
			s.exec("INSERT INTO scheduled_deletions (prefix, image_id, due_at) VALUES ($1, 1, now())", prefix)

			s.awaitCrash(s.startWithFailpoint("api", row.at, row.nth), cacheGroup)
			if left := s.objects(prefix); len(left) != row.left {
				t.Errorf("objects after the crash: %v, want %d", left, row.left)
			}
			const query = "SELECT started_at IS NOT NULL FROM scheduled_deletions WHERE prefix = $1"
			if started := queryColumn[bool](s, query, prefix); len(started) != 1 || !started[0] {
				t.Errorf("after the crash the deletion is started: %v, want one that is", started)
			}
			put("late.webp") // an upload that arrives late
			s.start("api")
			s.runDeletions(prefix)
			if left := s.objects(prefix); len(left) != 0 {
				t.Errorf("objects left: %v", left)
			}
		})
	}
}

// awaitSuspended waits until a program has suspended itself, and removes it from its group.
func (s *crashEnv) awaitSuspended(r *running, group string) {
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
	s.removeFromGroup(group)
}

// resume continues a suspended program.
func (s *crashEnv) resume(r *running) {
	s.t.Helper()
	s.must(syscall.Kill(r.PID(), syscall.SIGCONT))
}

// startSuspending starts a program that suspends itself at a failpoint.
func (s *crashEnv) startSuspending(program string, at failpoint.Name) *running {
	s.t.Helper()
	r := s.launch(program, "VITRINE_FAILPOINT="+string(at)+"=stop", "VITRINE_KAFKA_CLIENT_ID="+crashClientID)
	s.t.Cleanup(func() { _ = syscall.Kill(r.PID(), syscall.SIGCONT) }) // so that SIGTERM takes effect
	return r
}

// TestZombieWorker suspends a worker at a failpoint, lets another worker finish its image, and resumes it. The first worker
// must detect that it is superseded and change nothing, and objects that it stores late must be deleted.
func TestZombieWorker(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("api")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name string
		at   failpoint.Name
	}{
		{"begun", failpoint.WorkerBegun},
		{"downloaded", failpoint.WorkerFetched},
		{"rendered", failpoint.WorkerRendered},
		{"stored", failpoint.WorkerStored},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			p, err := s.tryPost("zombie "+row.name, s.sources.URL+drawingPath)
			s.must(err)
			zombie := s.startSuspending("worker", row.at)
			s.awaitSuspended(zombie, workerGroup)
			successor := s.start("worker")
			eventually(t, "the other worker finishes", func() error {
				if p := s.awaitSettled(p.ID); p.ImageStatus != "ready" {
					return fmt.Errorf("the image is %s", p.ImageStatus)
				}
				return nil
			})
			before := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")

			s.resume(zombie)
			s.awaitLog(zombie, "attempt superseded")
			s.checkOutcome(p.ID, afterRestart)
			after := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), "")
			if string(before.Body) != string(after.Body) {
				t.Errorf("the zombie changed\n%s\ninto\n%s", before.Body, after.Body)
			}
			s.stop(zombie)
			s.stop(successor)
		})
	}
}

// TestZombieRelay suspends an api after Kafka has acknowledged messages and before their rows are deleted. Postgres aborts
// its transaction, and the relay of another api sends the messages again. After it resumes, the first must do no harm.
func TestZombieRelay(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	zombie := s.startSuspending("api", failpoint.RelayPublished)
	zombie.await()
	_, _ = s.tryPost("Lamp", s.sources.URL+drawingPath) // the api may be suspended before it responds
	s.awaitSuspended(zombie, cacheGroup)

	s.env["VITRINE_HTTP_ADDR"] = port.Addr(t) // the zombie still listens on the first address
	s.url = "http://" + s.env["VITRINE_HTTP_ADDR"]
	s.start("api")
	s.start("worker")
	s.checkOutcome(s.productIDs("Lamp")[0], undisturbed)
	s.resume(zombie)
	s.awaitLog(zombie, "relaying failed")
	second, err := s.tryPost("Shade", s.sources.URL+drawingPath)
	s.must(err)
	s.checkOutcome(second.ID, undisturbed)
	s.checkOutcome(s.productIDs("Lamp")[0], undisturbed)
}

// TestZombieGarbageCollector suspends a garbage collector before it deletes objects, while another completes both passes.
// Every attempt has its own prefix, so the late deletion of the first must not remove published objects.
func TestZombieGarbageCollector(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("worker")
	const prefix = "products/1/1/1-dead/"
	s.must(s.bucket.Put(t.Context(), prefix+"full.webp", "image/webp", strings.NewReader("x"), 1))
	s.exec("INSERT INTO scheduled_deletions (prefix, image_id, due_at) VALUES ($1, 1, now())", prefix)
	zombie := s.startSuspending("api", failpoint.DeletionStarted)
	s.awaitSuspended(zombie, cacheGroup)

	s.env["VITRINE_HTTP_ADDR"] = port.Addr(t)
	s.url = "http://" + s.env["VITRINE_HTTP_ADDR"]
	s.start("api")
	p, err := s.tryPost("Lamp", s.sources.URL+drawingPath)
	s.must(err)
	if p.ID != 1 || p.Images[0].ID != 1 {
		t.Fatalf("got product %+v, want product 1 with image 1, as in the prefix", p)
	}
	s.checkOutcome(p.ID, undisturbed)
	s.resume(zombie)
	s.awaitLog(zombie, "objects deleted")
	s.checkOutcome(p.ID, undisturbed)
}
