package system_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/port"
)

// startSamples runs vitrine samples and returns its URL.
func (s *system) startSamples() string {
	s.t.Helper()
	addr := port.Addr(s.t)
	p := &process.Process{
		Name: "samples", Argv: []string{filepath.Join(binDir(s.t), "vitrine"), "samples", "--addr", addr}, Dir: s.dir,
		Env: []string{"GOCOVERDIR=" + coverDir(s.t)}, Log: filepath.Join(s.dir, "samples.log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: timeout, ForkThread: s.forkThread,
	}
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			s.t.Error(err)
		}
	})
	url := "http://" + addr
	eventually(s.t, "samples are served", func() error { return checkStatus(url+"/healthz", http.StatusOK) })
	return url
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	samples := s.startSamples()
	s.start("worker")
	s.start("api")
	smoke := func(files ...string) (string, error) {
		t.Helper()
		args := []string{"smoke", "--api", s.url, "--timeout", timeout.String()}
		for _, file := range files {
			args = append(args, "--source", samples+"/"+file)
		}
		return cli(t, nil, "vitrine", args...)
	}
	out, err := smoke("photos/1.jpg", "photos/2.jpg", "hills.jpg")
	if err != nil || !strings.Contains(out, "is complete: 3 images, 18 files") {
		t.Errorf("got %v\n%s", err, out)
	}
	out, err = smoke("photos/3.jpg", "moon.jpg")
	if err == nil || !strings.Contains(out, "moon.jpg) is failed: http_status: ") || strings.Contains(out, "photos/3.jpg) is") {
		t.Errorf("with a missing source: got %v\n%s", err, out)
	}
}
