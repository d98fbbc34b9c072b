package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/child"
	"vitrine.io/pkg/pipeline"
	"vitrine.io/pkg/testenv"
	"vitrine.io/pkg/testenv/port"
)

// patience is how long a test waits for what should happen at once: long, because machines are slow and nothing is timed.
const patience = 90 * time.Second

func TestMain(m *testing.M) { testenv.Main(m) }

// builtBin is where the programs are built if make test has not built them.
func builtBin() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "vitrine", "test-bin") // always the same: nothing piles up
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
	build := exec.Command("go", "build", "-o", dir+"/", "../../../cmd/api", "../../../cmd/worker", "../../../cmd/vitrine", "../../../cmd/codec")
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

// system is one Vitrine on real servers: programs as processes, and a source of pictures.
type system struct {
	t       *testing.T
	env     map[string]string
	nursery *child.Nursery
	bin     string // the directory of its programs
	dir     string
	url     string // of the API
	sources *sources
}

// newSystem sets a system up on the shared servers, without a program running. change alters its environment.
func newSystem(t *testing.T, change map[string]string) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), bin: binDir(t), nursery: child.NewNursery(), sources: newSources(t)}
	t.Cleanup(s.nursery.Close)
	p := pipeline.Default()
	p.Spec.Fetch.AllowCIDRs = []string{"127.0.0.0/8"}
	p.Spec.Retry.Backoff = pipeline.Duration(200 * time.Millisecond)
	s.env = map[string]string{
		"PATH": os.Getenv("PATH"), "GOCOVERDIR": coverDir(t),
		"VITRINE_LOG_LEVEL":                     "info",
		"VITRINE_KAFKA_REPLICATION":             "1",
		"VITRINE_KAFKA_MIN_ISR":                 "1",
		"VITRINE_KAFKA_PARTITIONS":              "3",
		"VITRINE_S3_CREATE_BUCKET":              "true",
		"VITRINE_S3_PUBLIC_READ":                "true",
		"VITRINE_CODEC_PATH":                    filepath.Join(binDir(t), "codec"),
		"VITRINE_CODEC_CHILDREN":                "1",
		"VITRINE_PIPELINE_FILE":                 filepath.Join(s.dir, "pipeline.yaml"),
		"VITRINE_SHUTDOWN_DELAY":                "0s",
		"VITRINE_HTTP_SHUTDOWN_TIMEOUT":         "15s",
		"VITRINE_WORKER_DEFER_WAIT":             "500ms",
		"VITRINE_SWEEP_INTERVAL":                "500ms",
		"VITRINE_POSTGRES_APPLICATION_NAME":     "test",
		"VITRINE_POSTGRES_MAX_OPEN_CONNS":       "5",
		"VITRINE_CATALOG_RETIRE_GRACE":          "1h",
		"VITRINE_SETUP_TIMEOUT":                 "60s",
		"VITRINE_LOG_SAMPLING_FIRST":            "0",
		"VITRINE_HTTP_ADDR":                     port.Addr(t),
		"VITRINE_KAFKA_CLIENT_ID":               "test",
		"VITRINE_REDIS_TOMBSTONE_TTL":           "30s",
		"VITRINE_REDIS_TTL":                     "5m",
		"VITRINE_HTTP_CORS_ORIGINS":             "https://shop.example",
		"VITRINE_POSTGRES_CONNECT_TIMEOUT":      "2s",
		"VITRINE_POSTGRES_STATEMENT_TIMEOUT":    "5s",
		"VITRINE_UNKNOWN_TO_EVERYBODY_ON_EARTH": "harmless",
	}
	if _, own := change["VITRINE_POSTGRES_DSN"]; !own {
		s.env["VITRINE_POSTGRES_DSN"] = testenv.Postgres(t)
	}
	if _, own := change["VITRINE_REDIS_ADDRS"]; !own {
		addrs, prefix := testenv.Redis(t)
		s.env["VITRINE_REDIS_ADDRS"], s.env["VITRINE_REDIS_KEY_PREFIX"] = strings.Join(addrs, ","), prefix
	}
	if _, own := change["VITRINE_KAFKA_BROKERS"]; !own {
		brokers, prefix := testenv.Kafka(t)
		s.env["VITRINE_KAFKA_BROKERS"], s.env["VITRINE_KAFKA_TOPIC_PREFIX"] = strings.Join(brokers, ","), prefix
	}
	b := testenv.S3(t)
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

// environ is the environment of a program, with more variables over the system's.
func (s *system) environ(more ...string) []string {
	var env []string
	for name, value := range s.env {
		env = append(env, name+"="+value)
	}
	return append(env, more...)
}

// setup runs vitrine setup, three times at once: it is safe to race.
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

// running is a program of the system.
type running struct {
	*child.Process
	t     *testing.T
	admin string // URL of the admin port
}

// start runs a program and waits until it is ready. At the test's end it is stopped, and its whole log has to be JSON.
func (s *system) start(name string, more ...string) *running {
	s.t.Helper()
	r := s.launch(name, more...)
	r.await()
	return r
}

// launch runs a program and does not wait.
func (s *system) launch(name string, more ...string) *running {
	s.t.Helper()
	admin := port.Addr(s.t)
	log, err := os.CreateTemp(s.dir, name+"-*.log")
	if err != nil {
		s.t.Fatal(err)
	}
	_ = log.Close()
	r := &running{t: s.t, admin: "http://" + admin, Process: &child.Process{
		Name: name, Argv: []string{filepath.Join(s.bin, name)}, Dir: s.dir, Log: log.Name(),
		Env:  s.environ(append([]string{"VITRINE_ADMIN_ADDR=" + admin}, more...)...),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, Patience: patience, Nursery: s.nursery,
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

// await waits until the program says that it is ready.
func (r *running) await() {
	r.t.Helper()
	eventually(r.t, r.Name+" is ready", func() error {
		if !r.Running() {
			r.t.Fatalf("%s ended: %s\n%s", r.Name, r.State(), r.Tail())
		}
		return answers(r.admin+"/readyz", http.StatusOK)
	})
}

// checkLog holds a log to its promises: every line is JSON, and no secret is in it.
func (s *system) checkLog(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Error(err)
		return
	}
	for line := range bytes.Lines(text) {
		if !json.Valid(line) && bytes.HasSuffix(line, []byte("\n")) { // a kill -9 may cut the last line
			s.t.Errorf("%s: not JSON: %s", filepath.Base(path), line)
		}
	}
	for _, secret := range []string{s.env["VITRINE_S3_SECRET_KEY"], s.env["VITRINE_POSTGRES_DSN"]} {
		if bytes.Contains(text, []byte(`"`+secret+`"`)) {
			s.t.Errorf("%s holds a secret", filepath.Base(path))
		}
	}
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (s *system) call(method, path, body string, header ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *system) try(method, path, body string, header ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	url := path
	if strings.HasPrefix(path, "/") {
		url = s.url + path
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

// product is the API's product, as a client reads it.
type product struct {
	ID          int64    `json:"id"`
	Compressed  []string `json:"compressed_product_images"`
	ImageStatus string   `json:"image_status"`
	Version     int64    `json:"version"`
	Images      []struct {
		ID       int64  `json:"id"`
		Status   string `json:"status"`
		Attempts int    `json:"attempts"`
		Error    *struct {
			Code string `json:"code"`
		} `json:"error"`
		Width      int `json:"width"`
		Height     int `json:"height"`
		Renditions []struct {
			Name   string `json:"name"`
			Format string `json:"format"`
			Width  int    `json:"width"`
			Height int    `json:"height"`
			Bytes  int    `json:"bytes"`
			URL    string `json:"url"`
		} `json:"renditions"`
	} `json:"images"`
}

// user makes a user and returns its id.
func (s *system) user() int64 {
	s.t.Helper()
	var u struct{ ID int64 }
	s.decode(s.call(http.MethodPost, "/users", `{"name":"Ada","email":"ada-`+rand()+`@example.com"}`), http.StatusCreated, &u)
	return u.ID
}

// post makes a product with pictures.
func (s *system) post(user int64, urls ...string) product {
	s.t.Helper()
	list, err := json.Marshal(append([]string{}, urls...))
	if err != nil {
		s.t.Fatal(err)
	}
	var p product
	body := fmt.Sprintf(`{"user_id":%d,"product_name":"Chair","product_images":%s,"product_price":"12.50"}`, user, list)
	s.decode(s.call(http.MethodPost, "/products", body), http.StatusCreated, &p)
	return p
}

func (s *system) decode(a answer, status int, into any) {
	s.t.Helper()
	if a.status != status {
		s.t.Fatalf("got %d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		s.t.Fatalf("decode %s: %v", a.body, err)
	}
}

// settled waits until no picture of the product is pending.
func (s *system) settled(id int64) product {
	s.t.Helper()
	var p product
	eventually(s.t, fmt.Sprintf("product %d has no pending picture", id), func() error {
		p = product{}
		s.decode(s.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""), http.StatusOK, &p)
		if p.ImageStatus == "pending" {
			return fmt.Errorf("it is pending: %+v", p)
		}
		return nil
	})
	return p
}

// metric returns the sum of a metric's series on an admin port.
func (s *system) metric(r *running, name string) float64 {
	s.t.Helper()
	var sum float64
	for line := range strings.Lines(string(s.call(http.MethodGet, r.admin+"/metrics", "").body)) {
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
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s: %v", what, err)
		}
		<-tick.C
	}
}

func answers(url string, status int) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

// sources is a server of pictures, good and bad.
type sources struct {
	*httptest.Server
	hold    chan struct{} // /held answers when it is closed
	fetched chan struct{} // has one element for each request of /held
	flaky   atomic.Int64  // requests of /flaky so far
}

func newSources(t *testing.T) *sources {
	t.Helper()
	s := &sources{hold: make(chan struct{}), fetched: make(chan struct{}, 100)}
	var photo, drawing bytes.Buffer
	if err := jpeg.Encode(&photo, scene(1200, 800), &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&drawing, scene(500, 400)); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/photo.jpg", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(photo.Bytes()) })
	mux.HandleFunc("/drawing.png", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(drawing.Bytes()) })
	mux.HandleFunc("/cut.jpg", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(photo.Bytes()[:photo.Len()/2]) })
	mux.HandleFunc("/text.jpg", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "not a picture") })
	mux.HandleFunc("/flaky.jpg", func(w http.ResponseWriter, _ *http.Request) {
		if s.flaky.Add(1) <= 2 {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(photo.Bytes())
	})
	mux.HandleFunc("/held.jpg", func(w http.ResponseWriter, r *http.Request) {
		s.fetched <- struct{}{}
		select {
		case <-s.hold:
			_, _ = w.Write(photo.Bytes())
		case <-r.Context().Done():
		}
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// scene is a smooth picture with some detail.
func scene(width, height int) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			u, v := float64(x)/float64(width), float64(y)/float64(height)
			m.SetRGBA(x, y, color.RGBA{
				uint8(255 * u), uint8(255 * v), uint8(127 + 120*math.Sin(9*u)*math.Cos(7*v)), 255,
			})
		}
	}
	return m
}

// coverDir is where programs built for coverage leave their counters; others do not care.
func coverDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		return dir
	}
	return t.TempDir()
}
