package program_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// config is a program's configuration.
type config struct {
	program.Config
	Own ownConfig `envPrefix:"OWN_"`
}

type ownConfig struct {
	Word string `env:"WORD" envDefault:"none" desc:"a word"`
}

// result is the result of a program.
type result struct {
	code           int
	stdout, stderr string
	served         bool
}

// invocation returns an Invocation with these arguments and environment.
func invocation(stdout, stderr io.Writer, args []string, environ ...string) program.Invocation {
	return program.Invocation{
		Args: args, Environ: environ, Stdout: stdout, Stderr: stderr, PID: 1,
		Hostname: func() (string, error) { return "vitrine-api-0", nil },
		Build:    func() (*debug.BuildInfo, bool) { return nil, false },
	}
}

var about = program.About{Name: "api", Text: "Sells chairs.", Version: "v1.2.3"}

// run runs a program that ends at once with err.
func run(t *testing.T, err error, args []string, environ ...string) result {
	t.Helper()
	var out, log bytes.Buffer
	var got result
	got.code = program.Run(t.Context(), about, invocation(&out, &log, args, environ...),
		func(_ context.Context, cfg config, app *program.App) error {
			got.served = true
			app.Log.Info("serving", zap.String("word", cfg.Own.Word))
			return err
		})
	got.stdout, got.stderr = out.String(), log.String()
	return got
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+"~", []byte(content), 0o600), os.Rename(file+"~", file)); err != nil {
		t.Fatal(err)
	}
}

// document returns a pipeline with a limit of downloads from one host.
func document(perHost int) string {
	p := pipeline.Default()
	p.Spec.Fetch.PerHost = perHost
	return string(p.Document())
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("configuration", testRunConfiguration)
	t.Run("error_is_logged", testRunErrorIsLogged)
	t.Run("help", testRunHelp)
	t.Run("invalid_configuration", testRunInvalidConfiguration)
}

func testRunConfiguration(t *testing.T) {
	t.Parallel()
	got := run(t, nil, nil, "VITRINE_OWN_WORD=chair", "VITRINE_LOG_LEVELS=debug", "VITRINE_OTHER=1")
	if got.code != 0 || got.stdout != "" || !got.served {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{
		`"msg":"starting"`, `"service":"api"`, `"version":"v1.2.3"`, `"instance":"vitrine-api-0"`,
		`"revision":"` + pipeline.NewRevision(pipeline.Default()).ID() + `"`, `"hash":"` + pipeline.Default().Hash() + `"`,
		`"word":"chair"`, `"VITRINE_OWN_WORD":"chair"`, "VITRINE_LOG_LEVELS", `"msg":"stopped"`,
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%s is not in the log:\n%s", want, got.stderr)
		}
	}
	if strings.Contains(got.stderr, "VITRINE_OTHER") {
		t.Error("there is a warning about a variable of another program")
	}
}

func testRunErrorIsLogged(t *testing.T) {
	t.Parallel()
	got := run(t, errors.New("cannot serve"), nil)
	if got.code != 1 || !strings.Contains(got.stderr, `"msg":"ended"`) || !strings.Contains(got.stderr, "cannot serve") ||
		strings.Contains(got.stderr, "stopped") {
		t.Errorf("got %+v", got)
	}
	for line := range strings.Lines(got.stderr) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func testRunHelp(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--help": "VITRINE_OWN_WORD", "--help-env": "VITRINE_PIPELINE_FILE", "--version": "vitrine-api v1.2.3",
	} {
		if got := run(t, nil, []string{arg}); got.code != 0 || got.served || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: got %+v", arg, got)
		}
	}
	code := program.Run(t.Context(), about, invocation(brokenWriter{}, &servers.Output{}, []string{"--help"}),
		func(context.Context, config, *program.App) error { return nil })
	if code != 1 {
		t.Errorf("got %d, want 1 if help cannot be written", code)
	}
}

// brokenWriter returns an error for every write.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func testRunInvalidConfiguration(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	write(t, bad, "kind: Pod")
	for environ, want := range map[string]string{
		"VITRINE_LOG_LEVEL=loud":               "VITRINE_LOG_LEVEL",
		"VITRINE_PIPELINE_POLL=1ms":            "VITRINE_PIPELINE_POLL",
		"VITRINE_PIPELINE_FILE=/nowhere":       "VITRINE_PIPELINE_FILE: open pipeline: open /nowhere",
		"VITRINE_PIPELINE_FILE=" + bad:         "kind: must be ImagePipeline",
		"VITRINE_CONFIG=/nowhere/at/all/x.yml": "/nowhere/at/all",
	} {
		got := run(t, nil, nil, environ)
		if got.code != 1 || got.served || !strings.HasPrefix(got.stderr, "api: ") || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: got %+v", environ, got)
		}
	}
	w := invocation(&servers.Output{}, &servers.Output{}, nil)
	w.Hostname = func() (string, error) { return "", errors.New("no name") }
	if code := program.Run(t.Context(), about, w, func(context.Context, config, *program.App) error { return nil }); code != 1 {
		t.Errorf("got %d, want 1 without a host name", code)
	}
}

// fakeHeartbeats keeps reports in memory.
type fakeHeartbeats struct {
	mu      sync.Mutex
	err     error // returned by every method
	reports chan pipeline.Report
	removed []string
}

func newFakeHeartbeats() *fakeHeartbeats {
	return &fakeHeartbeats{reports: make(chan pipeline.Report, 1000)}
}

func (r *fakeHeartbeats) RecordHeartbeat(_ context.Context, report pipeline.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports <- report
	return r.err
}

func (r *fakeHeartbeats) RemoveHeartbeat(_ context.Context, role, instance string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = append(r.removed, role+" "+instance)
	return r.err
}

func (r *fakeHeartbeats) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// follower is a program that only follows its pipeline.
type follower struct {
	t    *testing.T
	file string
	log  *servers.Output
	app  *program.App
	stop func() int
}

func follow(t *testing.T, store program.Heartbeats) *follower {
	t.Helper()
	f := &follower{t: t, file: filepath.Join(t.TempDir(), "pipeline.yaml"), log: &servers.Output{}}
	write(t, f.file, document(1))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, code := make(chan struct{}), make(chan int, 1)
	go func() {
		inv := invocation(io.Discard, f.log, nil, "VITRINE_PIPELINE_FILE="+f.file, "VITRINE_LOG_FLUSH=0s")
		code <- program.Run(ctx, about, inv,
			func(ctx context.Context, _ config, app *program.App) error {
				f.app = app
				app.SetHeartbeatInterval(time.Hour) // all reports but the first are requested
				close(ready)
				return app.WatchPipeline(store).Run(ctx)
			})
	}()
	<-ready
	f.stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() { f.stop() })
	return f
}

// series returns the values of the pipeline's metrics by name and labels.
func (f *follower) series() map[string]float64 {
	f.t.Helper()
	families, err := f.app.Registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "vitrine_pipeline_") {
			continue
		}
		for _, m := range family.GetMetric() {
			key := family.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			found[key] = m.GetGauge().GetValue()
		}
	}
	return found
}

// expect waits for a heartbeat with the pipeline and the error of its file, and checks the metrics.
func (f *follower) expect(r *fakeHeartbeats, perHost int, mistake string) {
	f.t.Helper()
	p := pipeline.Default()
	p.Spec.Fetch.PerHost = perHost
	id := pipeline.NewRevision(p).ID()
	for {
		var got pipeline.Report
		select {
		case got = <-r.reports:
		case <-time.After(30 * time.Second):
			f.t.Fatalf("no heartbeat with perHost %d and error %q", perHost, mistake)
		}
		if got.Revision == id && strings.Contains(got.Error, mistake) && (mistake == "") == (got.Error == "") {
			if got.Role != "api" || got.Instance != "vitrine-api-0" || got.InForce < 0 || got.InForce > time.Hour {
				f.t.Errorf("got %+v", got)
			}
			break
		}
	}
	series := f.series()
	success := 1.0
	if mistake != "" {
		success = 0
	}
	info := "vitrine_pipeline_revision_info hash=" + p.Hash() + " name=default revision=" + id
	if series[info] != 1 || series["vitrine_pipeline_reload_success"] != success || len(series) != 3 {
		f.t.Errorf("got %v, want %s 1, success %v and the time", series, info, success)
	}
	if at := time.Unix(int64(series["vitrine_pipeline_reload_timestamp_seconds"]), 0); time.Since(at) > time.Hour {
		f.t.Errorf("reloaded at %v", at)
	}
}

func TestWatchPipeline(t *testing.T) {
	t.Parallel()
	t.Run("reload_is_reported", testWatchReloadIsReported)
	t.Run("database_is_down", testWatchDatabaseIsDown)
}

func testWatchReloadIsReported(t *testing.T) {
	t.Parallel()
	r := newFakeHeartbeats()
	f := follow(t, r)
	f.expect(r, 1, "")
	write(t, f.file, document(2))
	f.expect(r, 2, "")
	write(t, f.file, document(0))
	f.expect(r, 2, "spec.fetch.perHost: must be 1 to 1000")
	write(t, f.file, document(3))
	f.expect(r, 3, "")
	if code := f.stop(); code != 0 {
		t.Errorf("ended with %d:\n%s", code, f.log)
	}
	if len(r.removed) != 1 || r.removed[0] != "api vitrine-api-0" {
		t.Errorf("removed %v, want one removal", r.removed)
	}
	log := f.log.String()
	if n := strings.Count(log, `"pipeline in force"`); n != 2 || strings.Count(log, "pipeline refused") != 1 {
		t.Errorf("want two reloads and one refusal in the log:\n%s", log)
	}
}

func testWatchDatabaseIsDown(t *testing.T) {
	t.Parallel()
	r := newFakeHeartbeats()
	r.fail(errors.New("the database cannot be reached"))
	f := follow(t, r)
	f.expect(r, 1, "")
	write(t, f.file, document(2))
	f.expect(r, 2, "")
	r.fail(nil)
	write(t, f.file, document(3))
	f.expect(r, 3, "")
	r.fail(errors.New("unreachable"))
	if code := f.stop(); code != 0 {
		t.Errorf("ended with %d:\n%s", code, f.log)
	}
	log := f.log.String()
	if strings.Count(log, `"heartbeat failed"`) != 1 || strings.Count(log, `"heartbeat recovered"`) != 1 ||
		strings.Count(log, `"heartbeat not removed"`) != 1 {
		t.Errorf("want each logged once:\n%s", log)
	}
}

// addr waits until the log has the address of the admin port.
func addr(t *testing.T, log *servers.Output) string {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if _, rest, found := strings.Cut(log.String(), `"addr":"`); found {
			addr, _, _ := strings.Cut(rest, `"`)
			return addr
		}
	}
	t.Fatal("the log has no address of the admin port")
	return ""
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	t.Run("metrics", testAdminMetrics)
}

func testAdminMetrics(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	log := &servers.Output{}
	code := program.Run(ctx, about, invocation(io.Discard, log, nil, "VITRINE_ADMIN_ADDR=127.0.0.1:0", "VITRINE_LOG_FLUSH=0s"),
		func(ctx context.Context, _ config, app *program.App) error {
			part := app.Admin(telemetry.NewHealth(telemetry.HealthConfig{}, nil, time.Now, app.Registry, app.Log))
			done := make(chan error, 1)
			go func() { done <- part.Run(ctx) }()
			if err := part.Ready(ctx); err != nil {
				return err
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr(t, log)+"/metrics", http.NoBody)
			if err != nil {
				return err
			}
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if !strings.Contains(string(text), "vitrine_pipeline_revision_info{") {
				t.Errorf("no revision in\n%s", text)
			}
			cancel()
			return errors.Join(err, <-done)
		})
	if code != 0 {
		t.Errorf("ended with %d:\n%s", code, log)
	}
}
