package system_test

import (
	"fmt"
	"net/http"
	"testing"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/test/imageserver"
)

// unknown means that the size of the outbox depends on timing.
const unknown = -1

// TestAPICrashDuringCreate crashes the api at each step from a product's rows to Kafka. The worker keeps running.
func TestAPICrashDuringCreate(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name    string
		at      failpoint.Name
		created bool  // the product exists after the crash
		outbox  int64 // size of the outbox after the crash
	}{
		{"product_before_commit", failpoint.InsertWritten, false, 0},
		{"product_after_commit", failpoint.CreateCommitted, true, unknown},
		{"relay_claimed", failpoint.BatchClaimed, true, 2},
		{"relay_published", failpoint.RelayPublished, true, 2},
		{"relay_deleted", failpoint.BatchDeleted, true, 2},
		{"relay_committed", failpoint.RelayBatchCommitted, true, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			api := s.startWithFailpoint("api", row.at, 1)
			api.await()
			_, err := s.tryPost(row.name, s.sources.URL+drawingPath) // the relay may crash the api before the response
			s.awaitCrash(api, cacheGroup)
			if err == nil && (row.at == failpoint.InsertWritten || row.at == failpoint.CreateCommitted) {
				t.Error("the crashed api sent a response")
			}
			if got := s.outboxSize(); row.outbox != unknown && got != row.outbox {
				t.Errorf("%d messages are in the outbox, want %d", got, row.outbox)
			}
			ids := s.productIDs(row.name)
			if (len(ids) == 1) != row.created {
				t.Fatalf("products after the crash: %v, want one: %v", ids, row.created)
			}

			s.start("api")
			if !row.created { // the client got no response and repeats the request
				p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
				s.must(err)
				ids = []int64{p.ID}
			}
			s.checkOutcome(ids[0], undisturbed)
		})
	}
}

// TestWorkerCrash crashes a worker at each step of a successful job. The api keeps running.
func TestWorkerCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	api := s.start("api")
	for _, row := range []workerCrash{ //nolint:paralleltest // subtests share one system
		{"before_begin", failpoint.WorkerTaken, 1, undisturbed, false},
		{"begin_before_commit", failpoint.EditWritten, 1, undisturbed, false},
		{"begin_after_commit", failpoint.WorkerBegun, 1, afterRestart, false},
		{"downloaded", failpoint.WorkerFetched, 1, afterRestart, false},
		{"rendered", failpoint.WorkerRendered, 1, afterRestart, false},
		{"first_object_stored", failpoint.ObjectStored, 1, afterRestart, false},
		{"all_objects_stored", failpoint.WorkerStored, 1, afterRestart, false},
		{"finish_before_commit", failpoint.EditWritten, 2, afterRestart, false},
		{"finish_after_commit", failpoint.OutcomeCommitted, 1, undisturbed, true},
		{"cache_invalidated", failpoint.OutcomeInvalidated, 1, undisturbed, true},
		{"record_handled", failpoint.KafkaHandled, 1, undisturbed, true},
		{"record_marked", failpoint.KafkaMarked, 1, undisturbed, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			row.run(s, p.ID)
		})
	}
	s.stop(api) // commits the marked offsets
	s.awaitNoLag(cacheGroup, event.TopicChanged)
}

// workerCrash is a crash of a worker while it processes one image.
type workerCrash struct {
	name     string
	at       failpoint.Name
	nth      int
	want     outcome
	finished bool // the image is in its final state before the crash
}

// run crashes a worker while it processes the product's image, and starts another worker.
func (c workerCrash) run(s *crashEnv, id int64) {
	s.t.Helper()
	path := fmt.Sprintf("/products/%d", id)
	for range 2 { // fills the cache
		s.call(http.MethodGet, path, "")
	}
	s.awaitCrash(s.startWithFailpoint("worker", c.at, c.nth), workerGroup)
	if c.finished {
		s.awaitSettled(id) // the event invalidates the cache if the worker did not
	}
	successor := s.start("worker")
	if c.finished { // the second delivery does not change the image
		s.awaitNoLag(workerGroup, event.TopicRequested)
	}
	s.checkOutcome(id, c.want)
	s.stop(successor)
	s.awaitNoLag(workerGroup, event.TopicRequested)
}

// TestWorkerCrashAfterFailure crashes a worker at each step after a failed or deferred attempt. The api keeps running.
func TestWorkerCrashAfterFailure(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 1)
	s.start("api")
	for _, row := range []struct {
		workerCrash
		source string
	}{
		// The source fails twice. An attempt whose result was rolled back is not counted.
		{workerCrash{"retry_before_commit", failpoint.EditWritten, 2,
			outcome{version: 3, attempts: 2, fencingToken: 3}, false}, "/" + imageserver.FlakyTwice},
		// The source fails once.
		{workerCrash{"retry_after_commit", failpoint.OutcomeCommitted, 1,
			outcome{version: 3, attempts: 2, fencingToken: 2}, false}, "/" + imageserver.FlakyOnce},
		{workerCrash{"retry_before_mark", failpoint.KafkaHandled, 1,
			outcome{version: 3, attempts: 2, fencingToken: 2}, false}, "/" + imageserver.FlakyOnce},
		{workerCrash{"fail_before_commit", failpoint.EditWritten, 2,
			outcome{version: 2, attempts: 1, fencingToken: 2, code: "http_status"}, false}, "/" + imageserver.Missing},
		{workerCrash{"fail_after_commit", failpoint.OutcomeCommitted, 1,
			outcome{version: 2, attempts: 1, fencingToken: 1, code: "http_status"}, true}, "/" + imageserver.Missing},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			p, err := s.tryPost(row.name, s.sources.URL+row.source)
			s.must(err)
			row.run(s, p.ID)
		})
	}
	// The first EditWritten is Begin of the image that holds the host's only slot.
	for _, row := range []workerCrash{ //nolint:paralleltest // subtests share one system
		{"defer_before_commit", failpoint.EditWritten, 2, undisturbed, false},
		{"defer_after_commit", failpoint.OutcomeCommitted, 1, undisturbed, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			holder, err := s.tryPost(row.name, s.sources.URL+"/"+imageserver.Held)
			s.must(err)
			work := s.startWithFailpoint("worker", row.at, row.nth)
			<-s.sources.HeldRequests() // the image holds the host's only slot
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			s.awaitCrash(work, workerGroup)
			s.sources.Release()
			successor := s.start("worker")
			s.checkOutcome(p.ID, row.want)
			s.checkOutcome(holder.ID, afterRestart)
			s.stop(successor)
			s.awaitNoLag(workerGroup, event.TopicRequested)
		})
	}
}
