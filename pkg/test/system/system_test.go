package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// timeout bounds every wait for a condition. It is generous, because test machines are slow.
const timeout = 90 * time.Second

// Paths of source images. They start with the size in pixels.
const (
	photoPath   = "/1200x800/photo.jpg"
	drawingPath = "/500x400/drawing.png"
)

func TestMain(m *testing.M) { servers.Main(m) }

// repository is the root of the repository, seen from this package.
const repository = "../../.."

// builtBin returns the directory for programs that make test has not built. It is always the same directory.
func builtBin() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "vitrine", "test-bin")
}

// programs returns the directory of the built programs, building them if make test has not.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("VITRINE_TEST_BIN_DIR"); dir != "" {
		return dir, nil
	}
	dir := builtBin()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/api", "./cmd/worker", "./cmd/vitrine", "./cmd/codec",
		"./cmd/controller", "./pkg/test/codecstub")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

func binDir(t *testing.T) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// system is one installation of Vitrine on real servers: programs as processes, and a server of source images.
type system struct {
	t          *testing.T
	env        map[string]string
	forkThread *process.ForkThread
	bin        string   // the directory of its programs
	under      []string // a command that runs its programs; none: they run by themselves
	dir        string
	url        string // of the API
	sources    *imageserver.Server
}

// newSystem runs vitrine setup on the shared servers and starts no program. change overrides environment variables.
func newSystem(t *testing.T, change map[string]string) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), bin: binDir(t), forkThread: process.NewForkThread(), sources: newSources(t)}
	t.Cleanup(s.forkThread.Close)
	p := pipeline.Default()
	p.Spec.Retry.Backoff = pipeline.Duration(200 * time.Millisecond)
	s.env = map[string]string{
		"PATH": os.Getenv("PATH"), "GOCOVERDIR": coverDir(t),
		"VITRINE_LOG_LEVEL":                   "info",
		"VITRINE_KAFKA_REPLICATION":           "1",
		"VITRINE_KAFKA_MIN_ISR":               "1",
		"VITRINE_KAFKA_PARTITIONS":            "3",
		"VITRINE_S3_CREATE_BUCKET":            "true",
		"VITRINE_S3_PUBLIC_READ":              "true",
		"VITRINE_CODEC_PATH":                  filepath.Join(binDir(t), "codec"),
		"VITRINE_CODEC_CHILDREN":              "1",
		"VITRINE_PIPELINE_FILE":               filepath.Join(s.dir, "pipeline.yaml"),
		"VITRINE_PIPELINE_ALLOW_CIDRS":        "127.0.0.0/8",
		"VITRINE_SHUTDOWN_DELAY":              "0s",
		"VITRINE_HTTP_SHUTDOWN_TIMEOUT":       "15s",
		"VITRINE_WORKER_DEFER_DELAY":          "500ms",
		"VITRINE_RESCUER_INTERVAL":            "500ms",
		"VITRINE_CLEANER_INTERVAL":            "500ms",
		"VITRINE_GC_INTERVAL":                 "500ms",
		"VITRINE_POSTGRES_APPLICATION_NAME":   "test",
		"VITRINE_POSTGRES_MAX_OPEN_CONNS":     "5",
		"VITRINE_CATALOG_DELETION_GRACE":      "1h",
		"VITRINE_SETUP_TIMEOUT":               "60s",
		"VITRINE_LOG_SAMPLING_FIRST":          "0",
		"VITRINE_HTTP_ADDR":                   port.Addr(t),
		"VITRINE_KAFKA_CLIENT_ID":             "test",
		"VITRINE_REDIS_TOMBSTONE_TTL":         "30s",
		"VITRINE_REDIS_TTL":                   "5m",
		"VITRINE_HTTP_CORS_ORIGINS":           "https://shop.example",
		"VITRINE_POSTGRES_CONNECT_TIMEOUT":    "2s",
		"VITRINE_POSTGRES_STATEMENT_TIMEOUT":  "5s",
		"VITRINE_UNKNOWN_VARIABLE_IS_IGNORED": "harmless",
	}
	if _, own := change["VITRINE_POSTGRES_DSN"]; !own {
		s.env["VITRINE_POSTGRES_DSN"] = servers.Postgres(t)
	}
	if _, own := change["VITRINE_REDIS_ADDRS"]; !own {
		addrs, prefix := servers.Redis(t)
		s.env["VITRINE_REDIS_ADDRS"], s.env["VITRINE_REDIS_KEY_PREFIX"] = strings.Join(addrs, ","), prefix
	}
	if _, own := change["VITRINE_KAFKA_BROKERS"]; !own {
		brokers, prefix := servers.Kafka(t)
		s.env["VITRINE_KAFKA_BROKERS"], s.env["VITRINE_KAFKA_TOPIC_PREFIX"] = strings.Join(brokers, ","), prefix
	}
	b := servers.S3(t)
	s.env["VITRINE_S3_ENDPOINT"], s.env["VITRINE_S3_REGION"], s.env["VITRINE_S3_BUCKET"] = b.Endpoint, b.Region, b.Bucket
	s.env["VITRINE_S3_ACCESS_KEY"], s.env["VITRINE_S3_SECRET_KEY"] = b.AccessKey, b.SecretKey
	maps.Copy(s.env, change)
	s.url = "http://" + s.env["VITRINE_HTTP_ADDR"]
	if err := os.WriteFile(s.env["VITRINE_PIPELINE_FILE"], p.Document(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.setup()
	return s
}

// environ returns the environment of a program. more overrides the system's variables.
func (s *system) environ(more ...string) []string {
	var env []string
	for name, value := range s.env {
		env = append(env, name+"="+value)
	}
	return append(env, more...)
}

// setup runs vitrine setup three times concurrently, which has to be safe.
func (s *system) setup() {
	s.t.Helper()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			cmd := exec.Command(filepath.Join(binDir(s.t), "vitrine"), "setup")
			cmd.Env = s.environ()
			if out, err := cmd.CombinedOutput(); err != nil {
				s.t.Errorf("vitrine setup: %v\n%s", err, out)
			}
		})
	}
	all.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// running is a started program of the system.
type running struct {
	*process.Process
	t     *testing.T
	admin string // URL of the admin port
}

// start runs a program and waits until it is ready. At the end of the test the program is stopped and its log is checked.
func (s *system) start(name string, more ...string) *running {
	s.t.Helper()
	r := s.launch(name, more...)
	r.await()
	return r
}

// launch is start without the wait.
func (s *system) launch(name string, more ...string) *running {
	s.t.Helper()
	admin := port.Addr(s.t)
	log, err := os.CreateTemp(s.dir, name+"-*.log")
	if err != nil {
		s.t.Fatal(err)
	}
	_ = log.Close()
	r := &running{t: s.t, admin: "http://" + admin, Process: &process.Process{
		Name: name, Argv: append(slices.Clone(s.under), filepath.Join(s.bin, name)), Dir: s.dir, Log: log.Name(),
		Env:  s.environ(append([]string{"VITRINE_ADMIN_ADDR=" + admin}, more...)...),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: timeout, ForkThread: s.forkThread,
	}}
	if err := r.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			s.t.Error(err)
		}
		s.checkLog(r.Log)
		if s.t.Failed() {
			s.t.Log(r.Tail())
		}
	})
	return r
}

// await waits until the program is ready.
func (r *running) await() {
	r.t.Helper()
	eventually(r.t, r.Name+" is ready", func() error {
		if !r.Running() {
			r.t.Fatalf("%s ended: %s\n%s", r.Name, r.State(), r.Tail())
		}
		return checkStatus(r.admin+"/readyz", http.StatusOK)
	})
}

// checkLog checks that every line of a log is JSON and that the log contains no secret.
func (s *system) checkLog(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Error(err)
		return
	}
	for line := range bytes.Lines(text) {
		if !json.Valid(line) && bytes.HasSuffix(line, []byte("\n")) { // SIGKILL may truncate the last line
			s.t.Errorf("%s: not JSON: %s", filepath.Base(path), line)
		}
	}
	for _, secret := range []string{s.env["VITRINE_S3_SECRET_KEY"], s.env["VITRINE_POSTGRES_DSN"]} {
		if bytes.Contains(text, []byte(`"`+secret+`"`)) {
			s.t.Errorf("%s contains a secret", filepath.Base(path))
		}
	}
}

// call sends a request to a path of the API or to a full URL, and fails the test if there is no response.
func (s *system) call(method, path, body string, header ...string) client.Response {
	s.t.Helper()
	a, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try sends a request that may fail.
func (s *system) try(method, path, body string, header ...string) (client.Response, error) {
	return s.api().Do(s.t.Context(), method, path, body, header...)
}

// api returns a client of the API. It reuses no connection, because programs restart during tests.
func (s *system) api() *client.Client {
	return client.New(s.url, client.Options{Timeout: timeout, FreshConns: true})
}

// user creates a user and returns its id.
func (s *system) user() int64 {
	s.t.Helper()
	id, err := s.api().CreateUser(s.t.Context(), "Ada", "ada-"+rand()+"@example.com")
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// post creates a product with images.
func (s *system) post(user int64, urls ...string) client.Product {
	s.t.Helper()
	p, err := s.api().CreateProduct(s.t.Context(), client.NewProduct{
		UserID: user, Name: "Chair", Price: "12.50", Sources: append([]string{}, urls...),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *system) decode(a client.Response, status int, into any) {
	s.t.Helper()
	if a.Status != status {
		s.t.Fatalf("got %d, want %d: %s", a.Status, status, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		s.t.Fatalf("decode %s: %v", a.Body, err)
	}
}

// awaitSettled waits until no image of the product is pending.
func (s *system) awaitSettled(id int64) client.Product {
	s.t.Helper()
	var p client.Product
	eventually(s.t, fmt.Sprintf("product %d has no pending image", id), func() error {
		p = client.Product{}
		s.decode(s.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""), http.StatusOK, &p)
		if !p.Settled() {
			return fmt.Errorf("pending: %+v", p)
		}
		return nil
	})
	return p
}

// metric returns the sum of a metric's series on an admin port.
func (s *system) metric(r *running, name string) float64 {
	s.t.Helper()
	var sum float64
	for line := range strings.Lines(string(s.call(http.MethodGet, r.admin+"/metrics", "").Body)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			var v float64
			fields := strings.Fields(rest)
			if _, err := fmt.Sscan(fields[len(fields)-1], &v); err != nil {
				s.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// eventually calls try until it returns nil.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("timeout waiting until %s: %v", what, err)
		}
		<-tick.C
	}
}

// checkStatus returns an error unless a GET of url has this status.
func checkStatus(url string, status int) error {
	c := client.New("", client.Options{Timeout: 10 * time.Second, FreshConns: true})
	return c.Call(context.Background(), http.MethodGet, url, nil, status, nil)
}

// newSources starts a server of source images for one test.
func newSources(t *testing.T) *imageserver.Server {
	t.Helper()
	s, err := imageserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // also closes held requests
	return s
}

// coverDir returns the directory for counters of programs built for coverage.
func coverDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		return dir
	}
	return t.TempDir()
}
