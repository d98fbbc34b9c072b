package maintenance_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// noCache is a cache that is away.
type noCache struct{}

func (noCache) Get(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return catalog.Document{}, false, nil
}

func (noCache) Fill(context.Context, catalog.ProductID, catalog.Document, time.Time) (catalog.FillOutcome, error) {
	return catalog.Filled, nil
}

func (noCache) Invalidate(context.Context, catalog.ProductID, int64) error { return nil }

// site is a catalogue on a real database beside a real bucket, with an auditor and a garbage collector with short intervals.
type site struct {
	*testing.T
	*catalog.Service
	store   *postgres.Store
	bucket  *blob.Bucket
	product catalog.Product
}

func newSite(t *testing.T, images int) *site {
	t.Helper()
	cfg := postgres.Config{
		DSN: servers.Postgres(t), ApplicationName: "test", MaxOpenConns: 8, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: 5 * time.Second, Timeout: 30 * time.Second, StatementTimeout: 30 * time.Second,
		LockTimeout: 30 * time.Second, SlowQuery: time.Minute, OutboxMaxTries: 20,
	}
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(cfg, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	at := servers.S3(t)
	bucket, err := blob.New(blob.Config{
		Endpoint: at.Endpoint, Region: at.Region, Bucket: at.Bucket, AccessKey: at.AccessKey, SecretKey: at.SecretKey,
		PathStyle: true, CreateBucket: true, AttemptTimeout: 30 * time.Second, MaxAttempts: 3,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bucket.Close)
	s := &site{T: t, store: postgres.NewStore(db), bucket: bucket}
	s.Service = catalog.New(catalog.Deps{
		Store: s.store, Pipelines: s.store, Cache: noCache{}, NewID: uuid.NewString, Random: rand.Float64, Now: time.Now,
		Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(pipeline.Default()) }, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Second, InvalidateTimeout: time.Second, DeletionGrace: time.Nanosecond})
	s.must(bucket.EnsureBucket(t.Context()))
	id, _, err := s.store.Installation(t.Context())
	s.must(err)
	_, err = bucket.Claim(t.Context(), id)
	s.must(err)
	user, err := s.store.InsertUser(t.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	s.must(err)
	in := catalog.NewProductInput{UserID: user.ID, Name: "Lamp", Price: decimal.NewFromInt(1), PriceSet: true}
	for range images {
		in.ImageURLs = append(in.ImageURLs, "https://example.com/"+uuid.NewString())
	}
	s.product, err = s.Create(t.Context(), in, "")
	s.must(err)
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) image(n int) catalog.Image {
	s.Helper()
	p, err := s.store.Product(s.Context(), s.product.ID)
	s.must(err)
	return p.Images[n]
}

// begin begins with a image and stores a rendition.
func (s *site) begin(n int, budget time.Duration) catalog.Attempt {
	s.Helper()
	img := s.image(n)
	a, err := s.Begin(s.Context(), catalog.Job{ProductID: s.product.ID, ImageID: img.ID, JobID: img.JobID}, budget)
	s.must(err)
	s.put(a.Prefix + "full.jpg")
	return a
}

func (s *site) put(key string) {
	s.Helper()
	s.must(s.bucket.Put(s.Context(), key, "image/jpeg", bytes.NewReader([]byte("jpeg")), 4))
}

func (s *site) finish(a catalog.Attempt) {
	s.Helper()
	full := catalog.Rendition{
		Name: "full", Format: pipeline.JPEG, Width: 1, Height: 1, Bytes: 4, Key: a.Prefix + "full.jpg", Default: true,
	}
	s.must(s.Finish(s.Context(), a, catalog.Result{
		Width: 1, Height: 1, SourceBytes: 1, SourceSHA256: "ab", Renditions: []catalog.Rendition{full},
	}))
}

func (s *site) there(prefix string) bool {
	s.Helper()
	found, _, err := s.bucket.Page(s.Context(), prefix, "", 1)
	s.must(err)
	return len(found) > 0
}

// tidy runs an auditor and a garbage collector until the test ends.
func (s *site) tidy() {
	const soon = 20 * time.Millisecond
	log := zap.NewNop()
	cfg := maintenance.GCConfig{Interval: soon, Batch: 100, SecondPassAfter: soon}
	collector := maintenance.NewGarbageCollector(s.store, s.bucket, cfg, prometheus.NewRegistry(), log)
	auditor := maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: s.store, References: s.store, Bucket: s.bucket, Catalog: s.Service, Now: time.Now, Log: log,
	}, maintenance.AuditorConfig{
		Enabled: true, Interval: soon, Rest: soon, Batch: 10, Rows: 10, MinAge: time.Nanosecond, Grace: time.Nanosecond,
		ToleratedShare: 1,
	}, prometheus.NewRegistry())
	ctx, stop := context.WithCancel(s.Context())
	var both sync.WaitGroup
	both.Go(func() { _ = collector.Run(ctx) })
	both.Go(func() { _ = auditor.Run(ctx) })
	s.Cleanup(func() { stop(); both.Wait() })
}

func (s *site) await(what string, ok func() bool) {
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

func TestAuditorDeletesALateUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	shown := s.begin(0, time.Hour)
	s.finish(shown)
	zombie := s.begin(1, time.Nanosecond) // it hangs, and others go on
	again := s.begin(1, time.Hour)
	s.put("products/notes.txt")
	s.tidy()
	s.await("the dead attempt's objects are deleted", func() bool { return !s.there(zombie.Prefix) })
	var deletions []string
	s.await("and its deletion is gone", func() bool {
		var err error
		deletions, err = s.store.SecondPassDue(t.Context(), 10)
		s.must(err)
		return len(deletions) == 0
	})
	s.put(zombie.Prefix + "late.jpg") // now nothing in the database knows of it
	s.await("what came too late is deleted", func() bool { return !s.there(zombie.Prefix) })
	for _, kept := range []string{shown.Prefix, again.Prefix, "products/notes.txt"} {
		if !s.there(kept) {
			t.Errorf("%s went with it", kept)
		}
	}
	s.finish(again)
}

func TestAuditorSparesRunningAttempts(t *testing.T) {
	t.Parallel()
	const images, rounds = 4, 8
	s := newSite(t, images)
	s.tidy()
	var all sync.WaitGroup
	for n := range images {
		all.Go(func() {
			for range rounds {
				s.finish(s.begin(n, time.Hour))
				_, err := s.Reprocess(t.Context(), s.product.ID, s.image(n).ID, "")
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for n := range images {
		s.finish(s.begin(n, time.Hour))
		for _, r := range s.image(n).Renditions {
			if !s.there(r.Key) {
				t.Errorf("%s is shown and gone", r.Key)
			}
		}
	}
	s.await("only what is shown is left", func() bool {
		found, _, err := s.bucket.Page(t.Context(), "products/", "", 100)
		s.must(err)
		return len(found) == images
	})
}

func TestAuditorRequestsDeletedObjectsAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	for n := range 2 {
		s.finish(s.begin(n, time.Hour))
	}
	s.must(s.bucket.DeletePrefix(t.Context(), s.image(1).Prefix))
	s.tidy()
	s.await("the image is queued", func() bool { return s.image(1).JobState == catalog.Queued })
	if img := s.image(1); img.Status != catalog.Ready {
		t.Errorf("it is %s, want it shown as ready meanwhile", img.Status)
	}
	if img := s.image(0); img.JobState != catalog.Idle {
		t.Error("a image whose objects are there was asked for anew")
	}
	s.finish(s.begin(1, time.Hour))
	if !s.there(s.image(1).Renditions[0].Key) {
		t.Error("it is ready and its object is not there")
	}
}
