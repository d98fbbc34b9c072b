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

// vault is a system with a backup of its database.
type vault struct {
	*system
	file string
}

// tool runs one of Postgres' programs on the system's schema.
func (v *vault) tool(name string, args ...string) {
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

// place returns the server's URL as libpq understands it, and the schema.
func (v *vault) place() (server, schema string) {
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

func (v *vault) backUp() {
	v.t.Helper()
	server, schema := v.place()
	v.tool("pg_dump", "--schema="+schema, "--file="+v.file, server)
}

func (v *vault) restore() {
	v.t.Helper()
	server, schema := v.place()
	v.tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--command=DROP SCHEMA "+schema+" CASCADE", server)
	v.tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+v.file, server)
}

// restored runs vitrine restored, and returns how many pictures it looked at and asked for again.
func (v *vault) restored(args ...string) (pictures, again int) {
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
	v.t.Fatalf("no line says what has come of it:\n%s", out)
	return 0, 0
}

// row is what Postgres says of a product.
type row struct {
	name    string
	version int64
}

func (v *vault) rows() map[int64]row {
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

// get reads a product, with an ETag that the client has kept, or "".
func (v *vault) get(id int64, etag string) client.Response {
	v.t.Helper()
	if etag == "" {
		return v.call(http.MethodGet, fmt.Sprintf("/products/%d", id), "")
	}
	return v.call(http.MethodGet, fmt.Sprintf("/products/%d", id), "", "If-None-Match", etag)
}

func (v *vault) patch(id int64, body string, header ...string) client.Response {
	v.t.Helper()
	return v.call(http.MethodPatch, fmt.Sprintf("/products/%d", id), body,
		append(header, "Content-Type", "application/merge-patch+json")...)
}

// loses takes a picture's objects out of the bucket.
func (v *vault) loses(p client.Product, i int) {
	v.t.Helper()
	bucket, err := blob.New(blob.Config{
		Endpoint: v.env["VITRINE_S3_ENDPOINT"], Region: v.env["VITRINE_S3_REGION"], Bucket: v.env["VITRINE_S3_BUCKET"],
		AccessKey: v.env["VITRINE_S3_ACCESS_KEY"], SecretKey: v.env["VITRINE_S3_SECRET_KEY"], PathStyle: true,
		MaxAttempts: 3, AttemptTimeout: patience,
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

// past is what clients have seen: ETags by product.
type past map[int64][]string

func (v *vault) sees(seen past, id int64) {
	v.t.Helper()
	a := v.get(id, "")
	if a.Status != http.StatusOK {
		v.t.Fatalf("product %d: %d %s", id, a.Status, a.Body)
	}
	seen[id] = append(seen[id], a.Header.Get("ETag"))
}

// holds compares every answer, to clients who know nothing and to those who know everything, with what Postgres says.
func (v *vault) holds(seen past) {
	v.t.Helper()
	rows := v.rows()
	for id, etags := range seen {
		for _, etag := range append([]string{""}, etags...) {
			a := v.get(id, etag)
			want, there := rows[id]
			if !there {
				if a.Status != http.StatusNotFound {
					v.t.Errorf("product %d did not come back, and is answered with %d %s", id, a.Status, a.Body)
				}
				continue
			}
			var got struct {
				Name    string `json:"product_name"`
				Version int64  `json:"version"`
			}
			if a.Status != http.StatusOK || json.Unmarshal(a.Body, &got) != nil || got.Name != want.name ||
				got.Version < want.version { // its pictures may be in work
				v.t.Errorf("product %d to a client who has %s: %d %s, want %+v", id, etag, a.Status, a.Body, want)
			}
		}
	}
}

// lostTime is what happens after the backup, and did not happen.
func (v *vault) lostTime(seen past, user int64, changed, deleted, hurt, waiting client.Product) (ids []int64) {
	v.t.Helper()
	for _, name := range []string{"Stool", "Throne", "Sofa"} {
		if a := v.patch(changed.ID, `{"product_name":"`+name+`"}`); a.Status != http.StatusOK {
			v.t.Fatalf("patch: %d %s", a.Status, a.Body)
		}
		v.sees(seen, changed.ID)
	}
	if a := v.call(http.MethodDelete, fmt.Sprintf("/products/%d", deleted.ID), ""); a.Status != http.StatusNoContent {
		v.t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	if a := v.get(deleted.ID, ""); a.Status != http.StatusNotFound { // which is cached now
		v.t.Fatalf("the deleted product: %d", a.Status)
	}
	again := fmt.Sprintf("/products/%d/images/%d/reprocess", hurt.ID, hurt.Images[0].ID)
	if a := v.call(http.MethodPost, again, ""); a.Status != http.StatusAccepted {
		v.t.Fatalf("reprocess: %d %s", a.Status, a.Body)
	}
	eventually(v.t, "the picture is remade", func() error {
		if p := v.settled(hurt.ID); p.Images[0].Renditions[0].URL == hurt.Images[0].Renditions[0].URL {
			return errors.New("it is the old one")
		}
		return nil
	})
	v.loses(hurt, 0) // as the compensator does after the grace
	for range 2 {
		ids = append(ids, v.settled(v.post(user, v.sources.URL+drawingPath).ID).ID)
	}
	ids = append(ids, v.settled(waiting.ID).ID)
	for _, id := range []int64{hurt.ID, ids[0], ids[1], waiting.ID} {
		v.sees(seen, id)
	}
	return ids
}

func TestRestoredFromABackup(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{
		"VITRINE_RESCUER_OVERDUE_AFTER": "2s",
		"VITRINE_REDIS_TOMBSTONE_TTL":   "10m", // or what the lost time has left behind is gone before it is missed
	})
	v := &vault{system: s, file: filepath.Join(s.dir, "backup.sql")}
	work, api := s.start("worker"), s.start("api")
	user, seen := s.user(), past{}
	var made []client.Product
	for range 3 {
		made = append(made, s.settled(s.post(user, s.sources.URL+photoPath, s.sources.URL+drawingPath).ID))
	}
	changed, deleted, hurt := made[0], made[1], made[2]
	if err := work.Stop(); err != nil {
		t.Fatal(err)
	}
	waiting := s.post(user, s.sources.URL+photoPath)
	for _, p := range append(made, waiting) {
		v.sees(seen, p.ID)
	}
	if out, err := cli(t, s.environ(), "vitrine", "restored"); err == nil || !strings.Contains(out, "stop them all") {
		t.Errorf("beside a running program: %v\n%s", err, out)
	}
	v.backUp()
	before := v.rows()

	work = s.start("worker")
	later := v.lostTime(seen, user, changed, deleted, hurt, waiting)
	lostUser := s.user()
	if err := errors.Join(api.Stop(), work.Stop()); err != nil {
		t.Fatal(err)
	}
	// News of the lost time that nobody has read yet.
	for _, err := range s.publisher().Publish(t.Context(), []event.Message{event.New(uuid.NewString(), event.Key(changed.ID),
		event.ProductChanged{ProductID: changed.ID, Version: 50})}) {
		if err != nil {
			t.Fatal(err)
		}
	}

	v.restore()
	if got := v.rows(); len(got) != len(before) || got[changed.ID] != before[changed.ID] {
		t.Fatalf("the backup has %+v, not %+v", got, before)
	}
	for _, want := range []int{1, 0} { // safe to repeat
		if pictures, again := v.restored("--force", "--jump", "5000"); pictures < 5 || again != want {
			t.Errorf("%d pictures were looked at and %d asked for again, want at least 5 and %d", pictures, again, want)
		}
	}
	s.start("worker")
	api = s.start("api")
	v.holds(seen)
	remade, ready := s.settled(hurt.ID), s.settled(waiting.ID)
	eventually(t, "the picture whose objects are gone is made again", func() error {
		if remade = s.settled(hurt.ID); remade.Images[0].Renditions[0].URL == hurt.Images[0].Renditions[0].URL {
			return errors.New("not yet")
		}
		return nil
	})
	for _, p := range []client.Product{remade, ready, s.settled(changed.ID), s.settled(deleted.ID)} {
		for _, r := range p.Images[0].Renditions {
			s.checkRendition(r.URL, r.Format, image.Pt(r.Width, r.Height), r.Bytes, image.Pt(1200, 800))
		}
	}
	v.goesOn(api, seen, user, changed, append(later, lostUser))
	v.holds(seen)
}

// goesOn shows that the new time is told from the lost one: in the cache, in what clients send, and in ids.
func (v *vault) goesOn(api *running, seen past, user int64, changed client.Product, ids []int64) {
	v.t.Helper()
	eventually(v.t, "the product that has changed in the lost time is cached", func() error {
		hits := v.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}")
		for range 2 {
			v.get(changed.ID, "")
		}
		if got := v.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}"); got < hits+1 {
			return errors.New("it is read from Postgres each time")
		}
		return nil
	})
	for _, etag := range seen[changed.ID] {
		a := v.patch(changed.ID, `{"product_name":"Overwritten"}`, "If-Match", etag)
		if a.Status != http.StatusPreconditionFailed {
			v.t.Errorf("a client who has %s may change what it has not seen: %d %s", etag, a.Status, a.Body)
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
		v.t.Errorf("product %d, picture %d: ids up to %d were given out before", p.ID, p.Images[0].ID, top)
	}
}

func TestRestoredLooksBeforeItLeaps(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	v := &vault{system: s}
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
		t.Errorf("what was refused has raised the epoch to %s", got)
	}
	if pictures, again := v.restored(); pictures+again != 0 || epoch() != "1" {
		t.Errorf("an empty database: %d pictures, %d asked for again, epoch %s", pictures, again, epoch())
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
