package maintenance_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// system is a catalogue on a PostgreSQL server and an object store, with one product.
type system struct {
	*catalogtest.Catalog
	bucket *blob.Bucket
}

func newSystem(t *testing.T, images int) *system {
	t.Helper()
	at := servers.S3(t)
	bucket, err := blob.New(blob.Config{
		Endpoint: at.Endpoint, Region: at.Region, Bucket: at.Bucket, AccessKey: at.AccessKey, SecretKey: at.SecretKey,
		PathStyle: true, CreateBucket: true, AttemptTimeout: 30 * time.Second, MaxAttempts: 3,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bucket.Close)
	s := &system{Catalog: catalogtest.New(t, images), bucket: bucket}
	s.Must(bucket.EnsureBucket(t.Context()))
	id, _, err := s.Store.Installation(t.Context())
	s.Must(err)
	_, err = bucket.Claim(t.Context(), id)
	s.Must(err)
	return s
}

// begin begins an attempt at an image and stores a rendition.
func (s *system) begin(n int, budget time.Duration) catalog.Attempt {
	s.Helper()
	img := s.Image(n)
	a, err := s.Begin(s.Context(), catalog.Job{ProductID: s.Product.ID, ImageID: img.ID, JobID: img.JobID}, budget)
	s.Must(err)
	s.put(a.Prefix + "full.jpg")
	return a
}

func (s *system) put(key string) {
	s.Helper()
	s.Must(s.bucket.Put(s.Context(), key, "image/jpeg", bytes.NewReader([]byte("jpeg")), 4))
}

func (s *system) finish(a catalog.Attempt) {
	s.Helper()
	full := catalog.Rendition{
		Name: "full", Format: pipeline.JPEG, Width: 1, Height: 1, Bytes: 4, Key: a.Prefix + "full.jpg", Default: true,
	}
	s.Must(s.Finish(s.Context(), a, catalog.Result{
		Width: 1, Height: 1, SourceBytes: 1, SourceSHA256: "ab", Renditions: []catalog.Rendition{full},
	}))
}

// exists reports whether the bucket has an object below prefix.
func (s *system) exists(prefix string) bool {
	s.Helper()
	found, _, err := s.bucket.Page(s.Context(), prefix, "", 1)
	s.Must(err)
	return len(found) > 0
}

// startMaintenance runs an auditor and a garbage collector with short intervals until the test ends.
func (s *system) startMaintenance() {
	const interval = 20 * time.Millisecond
	log := zap.NewNop()
	cfg := maintenance.GCConfig{Interval: interval, Batch: 100, SecondPassAfter: interval, Lease: time.Minute}
	collector := maintenance.NewGarbageCollector(s.Store, s.bucket, cfg, prometheus.NewRegistry(), log)
	auditor := maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: s.Store, References: s.Store, Bucket: s.bucket, Catalog: s.Service, Now: time.Now, Log: log,
	}, maintenance.AuditorConfig{
		Enabled: true, Interval: interval, Pass: interval, Lease: time.Minute, Batch: 10, Rows: 10, MaxObjectRate: 1e9,
		MaxRowRate: 1e9, MinAge: time.Nanosecond, Grace: time.Nanosecond, ToleratedShare: 1,
	}, prometheus.NewRegistry())
	ctx, stop := context.WithCancel(s.Context())
	var both sync.WaitGroup
	both.Go(func() { _ = collector.Run(ctx) })
	both.Go(func() { _ = auditor.Run(ctx) })
	s.Cleanup(func() { stop(); both.Wait() })
}

func (s *system) await(what string, ok func() bool) {
	s.Helper()
	limit, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-limit.Done():
			s.Fatalf("%s: not within a minute", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestServers(t *testing.T) {
	t.Parallel()
	t.Run("late_upload_is_deleted", testServersLateUploadIsDeleted)
	t.Run("objects_of_running_attempts_are_kept", testServersObjectsOfRunningAttemptsAreKept)
	t.Run("missing_object_is_requested_again", testServersMissingObjectIsRequestedAgain)
}

func testServersLateUploadIsDeleted(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 2)
	published := s.begin(0, time.Hour)
	s.finish(published)
	superseded := s.begin(1, time.Nanosecond) // its budget has ended, so the next one supersedes it
	current := s.begin(1, time.Hour)
	s.put("products/notes.txt")
	s.startMaintenance()
	s.await("the objects of the superseded attempt are deleted", func() bool { return !s.exists(superseded.Prefix) })
	s.await("its deletion is removed", func() bool {
		deletion := catalog.ScheduledDeletion{Prefix: superseded.Prefix, ImageID: superseded.ImageID}
		left, err := s.Store.Unreferenced(t.Context(), []catalog.ScheduledDeletion{deletion})
		s.Must(err)
		return len(left) == 1
	})
	s.put(superseded.Prefix + "late.jpg") // no row refers to it
	s.await("the late upload is deleted", func() bool { return !s.exists(superseded.Prefix) })
	for _, kept := range []string{published.Prefix, current.Prefix, "products/notes.txt"} {
		if !s.exists(kept) {
			t.Errorf("%s was deleted", kept)
		}
	}
	s.finish(current)
}

func testServersObjectsOfRunningAttemptsAreKept(t *testing.T) {
	t.Parallel()
	const images, rounds = 4, 8
	s := newSystem(t, images)
	s.startMaintenance()
	var all sync.WaitGroup
	for n := range images {
		all.Go(func() {
			for range rounds {
				s.finish(s.begin(n, time.Hour))
				_, err := s.Reprocess(t.Context(), s.Product.ID, s.Image(n).ID, "")
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for n := range images {
		s.finish(s.begin(n, time.Hour))
		for _, r := range s.Image(n).Renditions {
			if !s.exists(r.Key) {
				t.Errorf("%s is published and deleted", r.Key)
			}
		}
	}
	s.await("only the published objects remain", func() bool {
		found, _, err := s.bucket.Page(t.Context(), "products/", "", 100)
		s.Must(err)
		return len(found) == images
	})
}

func testServersMissingObjectIsRequestedAgain(t *testing.T) {
	t.Parallel()
	s := newSystem(t, 2)
	for n := range 2 {
		s.finish(s.begin(n, time.Hour))
	}
	s.Must(s.bucket.DeletePrefix(t.Context(), s.Image(1).Prefix))
	s.startMaintenance()
	s.await("the image is queued", func() bool { return s.Image(1).JobState == catalog.Queued })
	if img := s.Image(1); img.Status != catalog.Ready {
		t.Errorf("it is %s, want it ready until it is rendered again", img.Status)
	}
	if img := s.Image(0); img.JobState != catalog.Idle {
		t.Error("a complete image was requested again")
	}
	s.finish(s.begin(1, time.Hour))
	if !s.exists(s.Image(1).Renditions[0].Key) {
		t.Error("it is ready and its object is missing")
	}
}
