package system_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/test/client"
)

// backupSystem is a system with a backup of its database.
type backupSystem struct {
	*system
	file string
}

// tool runs a client program of Postgres.
func (v *backupSystem) tool(name string, args ...string) {
	v.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if len(found) == 0 {
			v.t.Fatalf("%s is not installed: it comes with PostgreSQL", name)
		}
		path = found[len(found)-1]
	}
	cmd := exec.CommandContext(v.t.Context(), path, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		v.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// schema returns the server's URL for libpq, and the schema.
func (v *backupSystem) schema() (server, schema string) {
	v.t.Helper()
	u, err := url.Parse(v.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		v.t.Fatal(err)
	}
	q := u.Query()
	schema, _, _ = strings.Cut(q.Get("search_path"), ",")
	q.Del("search_path")
	u.RawQuery = q.Encode()
	return u.String(), schema
}

func (v *backupSystem) backUp() {
	v.t.Helper()
	server, schema := v.schema()
	v.tool("pg_dump", "--schema="+schema, "--file="+v.file, server)
}

func (v *backupSystem) restore() {
	v.t.Helper()
	server, schema := v.schema()
	v.tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--command=DROP SCHEMA "+schema+" CASCADE", server)
	v.tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+v.file, server)
}

// restored runs vitrine restored and returns how many images it checked and how many it republished.
func (v *backupSystem) restored(args ...string) (images, republished int) {
	v.t.Helper()
	out, err := cli(v.t, v.environ(), "vitrine", append([]string{"restored"}, args...)...)
	if err != nil {
		v.t.Fatalf("restored: %v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		var l struct {
			Msg        string
			Images     int
			AskedAgain int `json:"requested_again"`
		}
		if json.Unmarshal([]byte(line), &l) != nil {
			v.t.Errorf("not JSON: %s", line)
		}
		if l.Msg == "restored" {
			return l.Images, l.AskedAgain
		}
	}
	v.t.Fatalf("the output has no summary:\n%s", out)
	return 0, 0
}

// row is a product in Postgres.
type row struct {
	name    string
	version int64
}

func (v *backupSystem) rows() map[int64]row {
	v.t.Helper()
	conn, err := pgx.Connect(v.t.Context(), v.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = conn.Close(v.t.Context()) }()
	found, err := conn.Query(v.t.Context(), "SELECT id, product_name, version FROM products WHERE deleted_at IS NULL")
	if err != nil {
		v.t.Fatal(err)
	}
	all := make(map[int64]row)
	var id int64
	var r row
	if _, err := pgx.ForEachRow(found, []any{&id, &r.name, &r.version}, func() error { all[id] = r; return nil }); err != nil {
		v.t.Fatal(err)
	}
	return all
}

// get reads a product, with If-None-Match unless etag is "".
func (v *backupSystem) get(id int64, etag string) client.Response {
	v.t.Helper()
	if etag == "" {
		return v.call(http.MethodGet, fmt.Sprintf("/products/%d", id), "")
	}
	return v.call(http.MethodGet, fmt.Sprintf("/products/%d", id), "", "If-None-Match", etag)
}

func (v *backupSystem) patch(id int64, body string, header ...string) client.Response {
	v.t.Helper()
	return v.call(http.MethodPatch, fmt.Sprintf("/products/%d", id), body,
		append(header, "Content-Type", "application/merge-patch+json")...)
}

// deleteObjects deletes an image's objects from the bucket.
func (v *backupSystem) deleteObjects(p client.Product, i int) {
	v.t.Helper()
	bucket, err := blob.New(blob.Config{
		Endpoint: v.env["VITRINE_S3_ENDPOINT"], Region: v.env["VITRINE_S3_REGION"], Bucket: v.env["VITRINE_S3_BUCKET"],
		AccessKey: v.env["VITRINE_S3_ACCESS_KEY"], SecretKey: v.env["VITRINE_S3_SECRET_KEY"], PathStyle: true,
		MaxAttempts: 3, AttemptTimeout: timeout,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		v.t.Fatal(err)
	}
	defer bucket.Close()
	_, key, _ := strings.Cut(p.Images[i].Renditions[0].URL, "/"+v.env["VITRINE_S3_BUCKET"]+"/")
	if err := bucket.DeletePrefix(v.t.Context(), key[:strings.LastIndexByte(key, '/')+1]); err != nil {
		v.t.Fatal(err)
	}
}

// etagsByProduct holds the ETags that clients have received, by product id.
type etagsByProduct map[int64][]string

func (v *backupSystem) recordETag(seen etagsByProduct, id int64) {
	v.t.Helper()
	a := v.get(id, "")
	if a.Status != http.StatusOK {
		v.t.Fatalf("product %d: %d %s", id, a.Status, a.Body)
	}
	seen[id] = append(seen[id], a.Header.Get("ETag"))
}

// checkResponses compares the responses to clients without and with each known ETag with the rows in Postgres.
func (v *backupSystem) checkResponses(seen etagsByProduct) {
	v.t.Helper()
	rows := v.rows()
	for id, etags := range seen {
		for _, etag := range append([]string{""}, etags...) {
			a := v.get(id, etag)
			want, exists := rows[id]
			if !exists {
				if a.Status != http.StatusNotFound {
					v.t.Errorf("product %d is not in the backup, got %d %s", id, a.Status, a.Body)
				}
				continue
			}
			var got struct {
				Name    string `json:"product_name"`
				Version int64  `json:"version"`
			}
			if a.Status != http.StatusOK || json.Unmarshal(a.Body, &got) != nil || got.Name != want.name ||
				got.Version < want.version { // its images may be in progress
				v.t.Errorf("product %d with If-None-Match %q: %d %s, want %+v", id, etag, a.Status, a.Body, want)
			}
		}
	}
}

// changeAfterBackup makes changes that the restore will undo. It returns the ids that were assigned.
func (v *backupSystem) changeAfterBackup(
	seen etagsByProduct, user int64, changed, deleted, damaged, waiting client.Product,
) (ids []int64) {
	v.t.Helper()
	for _, name := range []string{"Stool", "Throne", "Sofa"} {
		if a := v.patch(changed.ID, `{"product_name":"`+name+`"}`); a.Status != http.StatusOK {
			v.t.Fatalf("patch: %d %s", a.Status, a.Body)
		}
		v.recordETag(seen, changed.ID)
	}
	if a := v.call(http.MethodDelete, fmt.Sprintf("/products/%d", deleted.ID), ""); a.Status != http.StatusNoContent {
		v.t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	if a := v.get(deleted.ID, ""); a.Status != http.StatusNotFound { // fills the cache with its absence
		v.t.Fatalf("the deleted product: %d", a.Status)
	}
	reprocess := fmt.Sprintf("/products/%d/images/%d/reprocess", damaged.ID, damaged.Images[0].ID)
	if a := v.call(http.MethodPost, reprocess, ""); a.Status != http.StatusAccepted {
		v.t.Fatalf("reprocess: %d %s", a.Status, a.Body)
	}
	eventually(v.t, "the image is reprocessed", func() error {
		if p := v.awaitSettled(damaged.ID); p.Images[0].Renditions[0].URL == damaged.Images[0].Renditions[0].URL {
			return errors.New("not yet")
		}
		return nil
	})
	v.deleteObjects(damaged, 0) // as the garbage collector does after the grace period
	for range 2 {
		ids = append(ids, v.awaitSettled(v.post(user, v.sources.URL+drawingPath).ID).ID)
	}
	ids = append(ids, v.awaitSettled(waiting.ID).ID)
	for _, id := range []int64{damaged.ID, ids[0], ids[1], waiting.ID} {
		v.recordETag(seen, id)
	}
	return ids
}

func TestRestored(t *testing.T) {
	t.Parallel()
	t.Run("from_backup", testRestoredFromBackup)
	t.Run("failed_preconditions", testRestoredFailedPreconditions)
}

func testRestoredFromBackup(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{
		"VITRINE_RESCUER_OVERDUE_AFTER": "2s",
		"VITRINE_REDIS_TOMBSTONE_TTL":   "10m", // long enough for tombstones to outlive the restore
	})
	v := &backupSystem{system: s, file: filepath.Join(s.dir, "backup.sql")}
	work, api := s.start("worker"), s.start("api")
	user, seen := s.user(), etagsByProduct{}
	var made []client.Product
	for range 3 {
		made = append(made, s.awaitSettled(s.post(user, s.sources.URL+photoPath, s.sources.URL+drawingPath).ID))
	}
	changed, deleted, damaged := made[0], made[1], made[2]
	if err := work.Stop(); err != nil {
		t.Fatal(err)
	}
	waiting := s.post(user, s.sources.URL+photoPath)
	for _, p := range append(made, waiting) {
		v.recordETag(seen, p.ID)
	}
	if out, err := cli(t, s.environ(), "vitrine", "restored"); err == nil || !strings.Contains(out, "stop them all") {
		t.Errorf("while a program is running: %v\n%s", err, out)
	}
	v.backUp()
	before := v.rows()

	work = s.start("worker")
	later := v.changeAfterBackup(seen, user, changed, deleted, damaged, waiting)
	lostUser := s.user()
	if err := errors.Join(api.Stop(), work.Stop()); err != nil {
		t.Fatal(err)
	}
	// An event from after the backup that no consumer has read yet.
	for _, err := range s.publisher().Publish(t.Context(), []event.Message{event.New(uuid.NewString(), event.Key(changed.ID),
		event.ProductChanged{ProductID: changed.ID, Version: 50})}) {
		if err != nil {
			t.Fatal(err)
		}
	}

	v.restore()
	if got := v.rows(); len(got) != len(before) || got[changed.ID] != before[changed.ID] {
		t.Fatalf("the restored rows are %+v, want %+v", got, before)
	}
	for _, want := range []int{1, 0} { // safe to repeat
		if images, republished := v.restored("--force", "--jump", "5000"); images < 5 || republished != want {
			t.Errorf("%d images checked and %d republished, want at least 5 and %d", images, republished, want)
		}
	}
	s.start("worker")
	api = s.start("api")
	v.checkResponses(seen)
	v.checkImages(damaged, waiting, changed, deleted)
	v.checkAfterRestore(api, seen, user, changed, append(later, lostUser))
	v.checkResponses(seen)
}

// checkImages waits until the image without objects is reprocessed, and downloads the first image of each product.
func (v *backupSystem) checkImages(damaged, waiting, changed, deleted client.Product) {
	v.t.Helper()
	reprocessed, ready := v.awaitSettled(damaged.ID), v.awaitSettled(waiting.ID)
	eventually(v.t, "the image without objects is reprocessed", func() error {
		reprocessed = v.awaitSettled(damaged.ID)
		if reprocessed.Images[0].Renditions[0].URL == damaged.Images[0].Renditions[0].URL {
			return errors.New("not yet")
		}
		return nil
	})
	for _, p := range []client.Product{reprocessed, ready, v.awaitSettled(changed.ID), v.awaitSettled(deleted.ID)} {
		for _, r := range p.Images[0].Renditions {
			v.checkRendition(r.URL, r.Format, image.Pt(r.Width, r.Height), r.Bytes, image.Pt(1200, 800))
		}
	}
}

// checkAfterRestore checks that versions, ETags and ids from after the backup do not collide with new ones.
func (v *backupSystem) checkAfterRestore(
	api *running, seen etagsByProduct, user int64, changed client.Product, ids []int64,
) {
	v.t.Helper()
	eventually(v.t, "the product that changed after the backup is cached", func() error {
		hits := v.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}")
		for range 2 {
			v.get(changed.ID, "")
		}
		if got := v.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}"); got < hits+1 {
			return errors.New("no cache hit")
		}
		return nil
	})
	for _, etag := range seen[changed.ID] {
		a := v.patch(changed.ID, `{"product_name":"Overwritten"}`, "If-Match", etag)
		if a.Status != http.StatusPreconditionFailed {
			v.t.Errorf("If-Match %s from after the backup: %d %s, want 412", etag, a.Status, a.Body)
		}
	}
	if a := v.patch(changed.ID, `{"product_name":"Bench"}`); a.Status != http.StatusOK {
		v.t.Errorf("patch: %d %s", a.Status, a.Body)
	}
	if a := v.get(changed.ID, ""); !strings.Contains(string(a.Body), "Bench") {
		v.t.Errorf("after a change: %d %s", a.Status, a.Body)
	}
	p := v.post(user, v.sources.URL+photoPath)
	if top := slices.Max(ids); p.ID <= top || v.user() <= top || p.Images[0].ID <= top {
		v.t.Errorf("got product %d and image %d, but ids up to %d were used before the restore", p.ID, p.Images[0].ID, top)
	}
}

func testRestoredFailedPreconditions(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	v := &backupSystem{system: s}
	epoch := func() string {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), s.env["VITRINE_POSTGRES_DSN"])
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		var text string
		if err := conn.QueryRow(t.Context(), "SELECT epoch::text FROM installation").Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	for want, change := range map[string][]string{
		"check bucket":           {"VITRINE_S3_BUCKET=another"},
		"an older backup needs":  {"VITRINE_POSTGRES_DSN=" + migratedDown(t)},
		"--jump: must be":        {"--jump", "1"},
		"--rate: must be":        {"--rate", "0"},
		"VITRINE_PIPELINE_FILE:": {"VITRINE_PIPELINE_FILE=/nowhere"},
	} {
		env, args := s.environ(), []string{"restored"}
		if strings.HasPrefix(change[0], "--") {
			args = append(args, change...)
		} else {
			env = append(env, change...)
		}
		if out, err := cli(t, env, "vitrine", args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: got %v, want %q in\n%s", change, err, want, out)
		}
	}
	if got := epoch(); got != "0" {
		t.Errorf("failed commands have raised the epoch to %s", got)
	}
	if images, republished := v.restored(); images+republished != 0 || epoch() != "1" {
		t.Errorf("an empty database: %d images, %d republished, epoch %s", images, republished, epoch())
	}
}

// migratedDown returns the DSN of a database that lacks the newest migration.
func migratedDown(t *testing.T) string {
	t.Helper()
	dsn := migrated(t)
	if out, err := cli(t, []string{"VITRINE_POSTGRES_DSN=" + dsn}, "vitrine", "migrate", "down"); err != nil {
		t.Fatalf("migrate down: %v\n%s", err, out)
	}
	return dsn
}
