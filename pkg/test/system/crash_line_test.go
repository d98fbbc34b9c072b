package system_test

import (
	"fmt"
	"net/http"
	"testing"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/test/imageserver"
)

// unknown is where the number of waiting messages depends on who was faster.
const unknown = -1

// TestCrashBetweenAClientAndKafka crashes the api at each step from a product's rows to Kafka. A worker lives through it.
func TestCrashBetweenAClientAndKafka(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between string
		at      failpoint.Name
		created bool  // the product is there after the crash
		waiting int64 // messages in the outbox then
	}{
		{"the product's rows and their COMMIT", failpoint.InsertWritten, false, 0},
		{"the product's COMMIT and the answer", failpoint.CreateCommitted, true, unknown},
		{"the relay's claim and Kafka", failpoint.DrainClaimed, true, 2},
		{"Kafka's acknowledgement and the rows' deletion", failpoint.RelayPublished, true, 2},
		{"the rows' deletion and its COMMIT", failpoint.DrainDeleted, true, 2},
		{"the relay's COMMIT and its next round", failpoint.RelayDrained, true, 0},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			api := s.doomed("api", row.at, 1)
			api.await()
			_, told := s.offer(row.between, s.sources.URL+drawingPath) // the relay may be faster than the answer
			s.dies(api, caches)
			if told == nil && (row.at == failpoint.InsertWritten || row.at == failpoint.CreateCommitted) {
				t.Error("the client was answered, by an api that had crashed before")
			}
			if got := s.waiting(); row.waiting != unknown && got != row.waiting {
				t.Errorf("%d messages wait, want %d", got, row.waiting)
			}
			ids := s.named(row.between)
			if (len(ids) == 1) != row.created {
				t.Fatalf("after the crash there are %v, created is %v", ids, row.created)
			}

			s.start("api")
			if !row.created { // then nobody was told that it was, and the client asks again
				p, err := s.offer(row.between, s.sources.URL+drawingPath)
				s.must(err)
				ids = []int64{p.ID}
			}
			s.ends(ids[0], untroubled)
		})
	}
}

// TestCrashOfAWorker crashes a worker at each step of a picture's life, and TestCrashOfAWorkerWithBadLuck at each step of
// what follows from a failure. The api lives through it.
func TestCrashOfAWorker(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	api := s.start("api")
	for _, row := range []workerCrash{ //nolint:paralleltest // one after the other, on one stage
		{"the request and Begin", failpoint.WorkerTaken, 1, untroubled, false},
		{"Begin's rows and their COMMIT", failpoint.EditWritten, 1, untroubled, false},
		{"Begin's COMMIT and the download", failpoint.WorkerBegun, 1, begunAgain, false},
		{"the download and the codec", failpoint.WorkerFetched, 1, begunAgain, false},
		{"the renditions and the first object", failpoint.WorkerRendered, 1, begunAgain, false},
		{"the first object and the others", failpoint.ObjectStored, 1, begunAgain, false},
		{"the last object and Finish", failpoint.WorkerStored, 1, begunAgain, false},
		{"Finish's rows and their COMMIT", failpoint.EditWritten, 2, begunAgain, false},
		{"Finish's COMMIT and the cache", failpoint.OutcomeCommitted, 1, untroubled, true},
		{"the cache and the end", failpoint.OutcomeTold, 1, untroubled, true},
		{"the end and the mark", failpoint.KafkaHandled, 1, untroubled, true},
		{"the mark and its commit to the group", failpoint.KafkaMarked, 1, untroubled, true},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			p, err := s.offer(row.between, s.sources.URL+drawingPath)
			s.must(err)
			row.play(s, p.ID)
		})
	}
	s.stops(api) // what it has marked is committed
	s.caughtUp(caches, event.TopicChanged)
}

// workerCrash is a crash of a worker on its way with one picture.
type workerCrash struct {
	between string
	at      failpoint.Name
	nth     int
	want    ending
	ended   bool // the picture has ended before the crash: nobody has to come to finish it
}

// play crashes a worker that finds the product's picture waiting, and lets another one come.
func (c workerCrash) play(s *stage, id int64) {
	s.t.Helper()
	path := fmt.Sprintf("/products/%d", id)
	for range 2 { // the cache holds what was before
		s.call(http.MethodGet, path, "")
	}
	s.dies(s.doomed("worker", c.at, c.nth), workers)
	if c.ended {
		s.settled(id) // the event has told the cache, if the worker could not
	}
	heir := s.start("worker")
	if c.ended { // nothing of the picture tells that the heir has had the message, too
		s.caughtUp(workers, event.TopicRequested)
	}
	s.ends(id, c.want)
	s.stops(heir)
	s.caughtUp(workers, event.TopicRequested)
}

func TestCrashOfAWorkerWithBadLuck(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	s.start("api")
	for _, row := range []struct {
		workerCrash
		source string
	}{
		// It fails twice. What the crash undid has spent no attempt.
		{workerCrash{"Retry's rows and their COMMIT", failpoint.EditWritten, 2,
			ending{version: 3, attempts: 2, fence: 3}, false}, "/" + imageserver.FlakyTwice},
		// It fails once.
		{workerCrash{"Retry's COMMIT and the cache", failpoint.OutcomeCommitted, 1,
			ending{version: 3, attempts: 2, fence: 2}, false}, "/" + imageserver.FlakyOnce},
		{workerCrash{"Retry and the mark", failpoint.KafkaHandled, 1,
			ending{version: 3, attempts: 2, fence: 2}, false}, "/" + imageserver.FlakyOnce},
		{workerCrash{"Fail's rows and their COMMIT", failpoint.EditWritten, 2,
			ending{version: 2, attempts: 1, fence: 2, code: "http_status"}, false}, "/" + imageserver.Missing},
		{workerCrash{"Fail's COMMIT and the cache", failpoint.OutcomeCommitted, 1,
			ending{version: 2, attempts: 1, fence: 1, code: "http_status"}, true}, "/" + imageserver.Missing},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			p, err := s.offer(row.between, s.sources.URL+row.source)
			s.must(err)
			row.play(s, p.ID)
		})
	}
	// Begin of the picture that holds the host's slot is an Edit, too
	for _, row := range []workerCrash{ //nolint:paralleltest // one after the other, on one stage
		{"Defer's rows and their COMMIT", failpoint.EditWritten, 2, untroubled, false},
		{"Defer's COMMIT and the end", failpoint.OutcomeCommitted, 1, untroubled, false},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			holder, err := s.offer(row.between, s.sources.URL+"/"+imageserver.Held)
			s.must(err)
			work := s.doomed("worker", row.at, row.nth)
			<-s.sources.HeldRequests() // the only slot of the host is taken
			p, err := s.offer(row.between, s.sources.URL+drawingPath)
			s.must(err)
			s.dies(work, workers)
			s.sources.Release()
			heir := s.start("worker")
			s.ends(p.ID, row.want)
			s.ends(holder.ID, begunAgain)
			s.stops(heir)
			s.caughtUp(workers, event.TopicRequested)
		})
	}
}
