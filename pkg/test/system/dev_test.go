package system_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// dev is a running vitrine dev.
type dev struct {
	cmd  *exec.Cmd
	out  *servers.Output
	done chan error
}

// startDev runs vitrine dev in dir, on free ports.
func startDev(t *testing.T, dir string, flags ...string) *dev {
	t.Helper()
	args := []string{"dev"}
	for _, name := range []string{"http", "media", "samples", "api-admin", "worker-admin"} {
		args = append(args, "--"+name+"="+port.Addr(t))
	}
	d := &dev{
		cmd: exec.Command(filepath.Join(binDir(t), "vitrine"), append(args, flags...)...),
		out: &servers.Output{}, done: make(chan error, 1),
	}
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = dir, d.out, d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	return d
}

// serving waits until the demonstration has ended.
func (d *dev) serving(t *testing.T) {
	t.Helper()
	eventually(t, "vitrine dev serves", func() error {
		select {
		case err := <-d.done:
			t.Fatalf("it exited: %v\n%s", err, d.out)
		default:
		}
		if !strings.Contains(d.out.String(), "Ctrl-C stops") {
			return fmt.Errorf("so far:\n%s", d.out)
		}
		return nil
	})
}

// interrupt sends SIGINT, as Ctrl-C does, and checks that the command exits with code 0.
func (d *dev) interrupt(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-d.done; err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, d.out)
	}
}

func TestDev(t *testing.T) {
	t.Parallel()
	t.Run("demonstration_and_restart", testDevDemonstrationAndRestart)
	t.Run("private_directory", testDevPrivateDirectory)
	t.Run("invalid_options", testDevInvalidOptions)
	t.Run("worker_exit", testDevWorkerExit)
}

func testDevDemonstrationAndRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	openParents(t, dir)
	d := startDev(t, dir, "--data", data)
	d.serving(t)
	text := d.out.String()
	for _, want := range []string{
		"SOURCE", "SAVED", "image 3 of 3 is ready", "curl -s", "thumb", "webp", "jpg 2400x1600", "gif 1000x750",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the output does not contain %q:\n%s", want, text)
		}
	}
	media := regexp.MustCompile(`http://\S+/full\.jpg`).FindString(text)
	got, err := client.New("", client.Options{FreshConns: true}).Do(t.Context(), http.MethodGet, media, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != http.StatusOK || got.Header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("%s: %d, %s", media, got.Status, got.Header.Get("Content-Type"))
	}
	d.interrupt(t)

	second := startDev(t, dir, "--data", data)
	second.serving(t)
	if !strings.Contains(second.out.String(), "posted product 2 ") {
		t.Errorf("the second start does not keep the data of the first:\n%s", second.out)
	}
	old := regexp.MustCompile(`http://[0-9.:]+`).ReplaceAllString(media, "http://"+flagOf(second, "media"))
	if err := checkStatus(old, http.StatusOK); err != nil {
		t.Errorf("an image of the first start is missing: %v", err)
	}
	if err := checkStatus("http://"+flagOf(second, "http")+"/products/1", http.StatusOK); err != nil {
		t.Errorf("the product of the first start is missing: %v", err)
	}
	second.interrupt(t)
}

func flagOf(d *dev, name string) string {
	for _, arg := range d.cmd.Args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}

// openParents gives all users access to the directories that t.TempDir has created.
func openParents(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func testDevPrivateDirectory(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 { // Postgres runs as the same user and can read the directory
		return
	}
	dir := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := startDev(t, dir)
	d.serving(t)
	d.interrupt(t)
	if _, err := os.Stat(filepath.Join(dir, ".vitrine")); err == nil {
		t.Error("the data is in a directory that Postgres cannot read")
	}
	data := regexp.MustCompile(`data and logs are in (/var/lib/vitrine/[0-9a-f]+)`).FindStringSubmatch(d.out.String())
	if data == nil {
		t.Fatalf("the output does not name the data directory:\n%s", d.out)
	}
	if err := os.RemoveAll(data[1]); err != nil {
		t.Error(err)
	}
}

func testDevInvalidOptions(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := startDev(t, t.TempDir(), "--http", l.Addr().String(), "--bin", t.TempDir(), "--data", "x")
	if err := <-d.done; err == nil {
		t.Error("it did not fail")
	}
	text := d.out.String()
	for _, want := range []string{
		l.Addr().String() + " is in use", "--http", "the program api is not in", "make build",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the output does not contain %q:\n%s", want, text)
		}
	}
}

func testDevWorkerExit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openParents(t, dir)
	d := startDev(t, dir, "--data", filepath.Join(dir, "data"), "--demo=false")
	d.serving(t)
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(d.cmd.Process.Pid), "-x", "worker").Output()
	if err != nil {
		t.Fatalf("find the worker: %v", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-d.done; err == nil || !strings.Contains(d.out.String(), "worker ended: signal: killed") {
		t.Errorf("got %v:\n%s", err, d.out)
	}
}
