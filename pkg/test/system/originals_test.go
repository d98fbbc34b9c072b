package system_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/servers"
)

// bucketOf returns a bucket of an environment.
func bucketOf(t *testing.T, env map[string]string, cfg blob.Config) *blob.Bucket {
	t.Helper()
	cfg.Endpoint, cfg.Region, cfg.PathStyle = env["VITRINE_S3_ENDPOINT"], env["VITRINE_S3_REGION"], true
	cfg.AccessKey, cfg.SecretKey = env["VITRINE_S3_ACCESS_KEY"], env["VITRINE_S3_SECRET_KEY"]
	cfg.MaxAttempts, cfg.AttemptTimeout = 3, timeout
	b, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestSetupOriginals(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	env["VITRINE_S3_ORIGINALS_BUCKET"] = servers.S3(t).Bucket
	for range 2 { // safe to repeat
		log, err := runCommand(t, env, nil, "setup")
		if err != nil || !hasLine(log, `"ready"`, `"privacy of originals"`) {
			t.Fatalf("got %v\n%s", err, log)
		}
	}
	if log, err := runCommand(t, env, nil, "wait"); err != nil {
		t.Errorf("wait: %v\n%s", err, log)
	}
	public := bucketOf(t, env, blob.Config{
		Bucket: env["VITRINE_S3_ORIGINALS_BUCKET"], CreateBucket: true, PublicRead: true,
	})
	if err := public.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := runCommand(t, env, nil, "setup")
	if err == nil || !hasLine(log, `"ended"`, "bucket_public", env["VITRINE_S3_ORIGINALS_BUCKET"]) {
		t.Errorf("public: got %v, want an error that names the bucket\n%s", err, log)
	}
}

// keeping is a system whose pipeline keeps originals.
type keeping struct {
	*system
	originals *blob.Bucket
}

func newKeeping(t *testing.T) *keeping {
	t.Helper()
	name := servers.S3(t).Bucket
	s := &keeping{system: newSystem(t, map[string]string{
		"VITRINE_S3_ORIGINALS_BUCKET": name, "VITRINE_PIPELINE_ALLOW_ORIGINALS": "true",
		"VITRINE_CATALOG_DELETION_GRACE": "1s", "VITRINE_GC_SECOND_PASS_AFTER": "100ms",
		"VITRINE_BACKFILL_INTERVAL": "100ms", "VITRINE_BACKFILL_SETTLE": "100ms",
	})}
	s.originals = bucketOf(t, s.env, blob.Config{Bucket: s.env["VITRINE_S3_BUCKET"], OriginalsBucket: name}).Originals()
	s.change(func(spec *pipeline.Spec) { spec.Originals.Keep = true })
	return s
}

// change changes the pipeline's file.
func (s *keeping) change(fn func(*pipeline.Spec)) {
	s.t.Helper()
	document, err := os.ReadFile(s.env["VITRINE_PIPELINE_FILE"])
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := pipeline.Parse(document)
	if err != nil {
		s.t.Fatal(err)
	}
	fn(&p.Spec)
	if err := os.WriteFile(s.env["VITRINE_PIPELINE_FILE"], p.Document(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// kept returns the keys of the originals.
func (s *keeping) kept() []string {
	s.t.Helper()
	objects, _, err := s.originals.Page(s.t.Context(), "originals/", "originals/1", 100)
	if err != nil {
		s.t.Fatal(err)
	}
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// checkPrivate compares an original with its source, and reports one that everyone can read.
func (s *keeping) checkPrivate(key, source string) {
	s.t.Helper()
	want := s.call(http.MethodGet, source, "").Body
	got, err := s.originals.Read(s.t.Context(), key, int64(len(want)))
	if err != nil || !slices.Equal(got, want) {
		s.t.Errorf("%s has %d bytes, %v, want the %d of its source", key, len(got), err, len(want))
	}
	url := s.env["VITRINE_S3_ENDPOINT"] + "/" + s.env["VITRINE_S3_ORIGINALS_BUCKET"] + "/" + key
	if a := s.call(http.MethodGet, url, ""); a.Status < http.StatusBadRequest {
		s.t.Errorf("everyone can read %s: got %d", url, a.Status)
	}
}

// backfill makes the images again as the pipeline's file says, and returns how many were done, skipped and failed, and how
// many have no original by the plan.
func (s *keeping) backfill(args ...string) (done, skipped, failed int, noOriginal float64) {
	s.t.Helper()
	type backfill struct {
		Name, State           string
		Done, Skipped, Failed int
		Plan                  struct {
			NoOriginal struct{ Value float64 } `json:"no_original"`
		}
	}
	run := func(args ...string) (b backfill) {
		s.t.Helper()
		out, err := s.stdout(append([]string{"backfill"}, append(args, "-o", "json")...)...)
		if err == nil {
			err = json.Unmarshal([]byte(out), &b)
		}
		if err != nil {
			s.t.Fatalf("backfill %v: %v\n%s", args, err, out)
		}
		return b
	}
	b := run(append([]string{"plan", "--file", s.env["VITRINE_PIPELINE_FILE"]}, args...)...)
	noOriginal = b.Plan.NoOriginal.Value
	run("approve", b.Name)
	eventually(s.t, b.Name+" is complete", func() error {
		if b = run("status", b.Name); b.State != "complete" {
			return fmt.Errorf("it is %+v", b)
		}
		return nil
	})
	return b.Done, b.Skipped, b.Failed, noOriginal
}

// thumbWidths returns the widths of the images' thumbnails.
func thumbWidths(p client.Product) []int {
	var widths []int
	for _, img := range p.Images {
		for _, r := range img.Renditions {
			if r.Name == "thumb" && r.Format == "jpeg" {
				widths = append(widths, r.Width)
			}
		}
	}
	return widths
}

// TestOriginals keeps originals, makes all images again after their sources are gone, and deletes the product.
func TestOriginals(t *testing.T) {
	t.Parallel()
	s := newKeeping(t)
	s.start("worker")
	s.start("api")
	paths := []string{"/600x400/a.jpg", "/500x400/b.png", "/400x300/c.jpg"}
	posted := s.post(s.user(), s.sources.URL+paths[0], s.sources.URL+paths[1], s.sources.URL+paths[2])
	if p := s.awaitSettled(posted.ID); p.ImageStatus != "ready" {
		t.Fatalf("got %+v", p)
	}
	keys := s.kept()
	if len(keys) != len(paths) {
		t.Fatalf("kept %v, want one original for each image", keys)
	}
	for i, img := range posted.Images {
		at := slices.IndexFunc(keys, func(key string) bool {
			return strings.HasPrefix(key, fmt.Sprintf("originals/%d/%d/", posted.ID, img.ID))
		})
		s.checkPrivate(keys[at], s.sources.URL+paths[i])
	}
	for _, path := range paths {
		s.sources.SetAbsent(path, true)
	}

	s.change(func(spec *pipeline.Spec) { spec.Renditions[0].Width = 200 })
	done, skipped, failed, without := s.backfill("--from", s.defaultFile())
	if done != 3 || skipped+failed != 0 || without != 0 {
		t.Errorf("%d done, %d skipped, %d failed, %v without an original", done, skipped, failed, without)
	}
	if got := thumbWidths(s.awaitSettled(posted.ID)); !slices.Equal(got, []int{200, 200, 200}) {
		t.Errorf("got thumbnails of %v pixels, want 200", got)
	}

	lost := keys[0][:strings.LastIndexByte(keys[0], '/')+1] // of the first image: an operator has deleted it
	if err := s.originals.DeletePrefix(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	s.change(func(spec *pipeline.Spec) { spec.Renditions[0].Width = 100 })
	done, skipped, failed, _ = s.backfill("--from", s.defaultFile(), "--on-missing", "skip")
	if done != 2 || skipped != 1 || failed != 0 {
		t.Errorf("%d done, %d skipped, %d failed, want 2, 1 and 0", done, skipped, failed)
	}
	if got := thumbWidths(s.awaitSettled(posted.ID)); !slices.Equal(got, []int{200, 100, 100}) {
		t.Errorf("got thumbnails of %v pixels, want the first unchanged", got)
	}
	for i, path := range paths {
		if n := s.sources.Requests(path); n != 2 { // the worker's, and that of checkPrivate
			t.Errorf("source %d was requested %d times, want twice", i, n)
		}
	}

	if a := s.call(http.MethodDelete, fmt.Sprintf("/products/%d", posted.ID), ""); a.Status != http.StatusNoContent {
		t.Fatalf("delete: got %d", a.Status)
	}
	eventually(t, "the originals are deleted", func() error {
		if keys := s.kept(); len(keys) > 0 {
			return errors.New(strings.Join(keys, " "))
		}
		return nil
	})
}

// defaultFile returns a file with the default pipeline.
func (s *keeping) defaultFile() string {
	s.t.Helper()
	file := s.t.TempDir() + "/default.json"
	if err := os.WriteFile(file, pipeline.Default().Document(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// TestOriginalsCrash crashes a worker around the outcome of an image whose original it keeps. Of all attempts, the bucket
// has the original of the last one.
func TestOriginalsCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.env["VITRINE_S3_ORIGINALS_BUCKET"], s.env["VITRINE_PIPELINE_ALLOW_ORIGINALS"] = servers.S3(t).Bucket, "true"
	s.setup()
	k := &keeping{system: s.system, originals: bucketOf(t, s.env, blob.Config{
		Bucket: s.env["VITRINE_S3_BUCKET"], OriginalsBucket: s.env["VITRINE_S3_ORIGINALS_BUCKET"],
	}).Originals()}
	k.change(func(spec *pipeline.Spec) { spec.Originals.Keep = true })
	s.start("api")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name string
		at   failpoint.Name
		want outcome
	}{
		{"stored", failpoint.WorkerStored, afterRestart},
		{"finished", failpoint.OutcomeCommitted, undisturbed},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			s.awaitCrash(s.startWithFailpoint("worker", row.at, 1), workerGroup)
			worker := s.start("worker")
			s.checkOutcome(p.ID, row.want)
			s.stop(worker)
			prefix := fmt.Sprintf("originals/%d/", p.ID)
			s.runDeletions(prefix)
			want := queryColumn[string](s, "SELECT original_key FROM images WHERE product_id = $1", p.ID)
			got := slices.DeleteFunc(k.kept(), func(key string) bool { return !strings.HasPrefix(key, prefix) })
			if !slices.Equal(got, want) {
				t.Errorf("the bucket has %v, the row %v", got, want)
			}
		})
	}
}
