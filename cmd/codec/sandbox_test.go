package main_test

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/pipeline"
)

// halves is the image that twoColourJPEG returns, of 400 x 300, encoded by libvips with HEVC, which not every build of
// libvips supports.
//
//go:embed testdata/halves.heic
var halves []byte

// hello is the first frame of a codec.
const hello = "\x00\x00\x00\x0eH{\"protocol\":4}"

// threads starts a codec, waits for its hello, and returns the status of each of its threads from /proc.
func threads(t *testing.T, env []string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append([]string{"VIPS_BLOCK_UNTRUSTED=1", "GOCOVERDIR=" + coverage}, env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = in.Close(), cmd.Wait() }()
	got, err := bufio.NewReader(out).Peek(len(hello))
	if err != nil || string(got) != hello {
		t.Fatalf("first bytes are %q (%v), want hello", got, err)
	}
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(found) < 3 {
		t.Fatalf("%d threads (%v), want several", len(found), err)
	}
	all := make([]string, 0, len(found))
	for _, path := range found {
		status, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		all = append(all, string(status))
	}
	return all
}

// allocator returns the environment of a codec with jemalloc, which has a thread of its own; nil if it is not installed.
func allocator() []string {
	found, _ := filepath.Glob("/usr/lib/*/libjemalloc.so.2")
	if len(found) == 0 {
		return nil
	}
	return []string{"LD_PRELOAD=" + found[0], "MALLOC_CONF=background_thread:true"}
}

func TestSandbox(t *testing.T) {
	t.Parallel()
	t.Run("covers_every_thread", testSandboxCoversEveryThread)
	t.Run("every_format", testSandboxEveryFormat)
	t.Run("large_image_in_every_format", testSandboxLargeImageInEveryFormat)
	t.Run("off", testSandboxOff)
	t.Run("kernel_without_seccomp", testSandboxKernelWithoutSeccomp)
}

func testSandboxCoversEveryThread(t *testing.T) {
	t.Parallel()
	for _, status := range threads(t, allocator()) {
		if !strings.Contains(status, "\nSeccomp:\t2\n") || !strings.Contains(status, "\nNoNewPrivs:\t1\n") {
			t.Errorf("a thread has no filter, or could gain privileges:\n%s", status)
		}
	}
	for _, status := range threads(t, nil, "--sandbox=off") {
		if strings.Contains(status, "\nSeccomp:\t2\n") && !filtered(t) {
			t.Errorf("a thread has a filter though the sandbox is off:\n%s", status)
		}
	}
}

// filtered reports whether this process has a filter itself, as in a container.
func filtered(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// everyFormat requests one image in every output format.
func everyFormat(width int) pipeline.Spec {
	spec := longDeadlineSpec()
	spec.Renditions = nil
	// Each is in a rendition of its own, so that none is dropped because of another.
	for _, f := range []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF, pipeline.PNG} {
		spec.Renditions = append(spec.Renditions, pipeline.Rendition{Name: string(f), Width: width, Formats: []pipeline.Output{
			{Format: f, Quality: pipeline.DefaultQuality(f)},
		}})
	}
	spec.Accept = []pipeline.Format{
		pipeline.JPEG, pipeline.PNG, pipeline.WebP, pipeline.GIF, pipeline.AVIF, pipeline.HEIC,
	}
	return spec
}

// sources returns the image of twoColourJPEG in each source format that Go encodes, and in HEIC.
func sources(t *testing.T) map[pipeline.Format][]byte {
	t.Helper()
	photo := twoColourJPEG(t, 400, 300)
	img, err := jpeg.Decode(bytes.NewReader(photo))
	if err != nil {
		t.Fatal(err)
	}
	var asPNG, asGIF bytes.Buffer
	if err := png.Encode(&asPNG, img); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&asGIF, img, nil); err != nil {
		t.Fatal(err)
	}
	return map[pipeline.Format][]byte{
		pipeline.JPEG: photo, pipeline.PNG: asPNG.Bytes(), pipeline.GIF: asGIF.Bytes(), pipeline.HEIC: halves,
	}
}

func testSandboxEveryFormat(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]codec.Option{
		"vector_unit": nil, "no_vector_unit": {codec.WithEnv("VIPS_NOVECTOR=1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, logs := pool(t, nil, options...)
			all := sources(t)
			rendered, err := p.Render(t.Context(), all[pipeline.JPEG], everyFormat(300))
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range rendered.Files { // formats that Go does not encode
				if all[out.Format] == nil {
					all[out.Format] = out.Body
				}
			}
			if len(all) != 6 {
				t.Fatalf("%d formats to read, want 6", len(all))
			}
			for format, source := range all {
				got, err := p.Render(t.Context(), source, everyFormat(200))
				if err != nil {
					t.Errorf("from %s: %v", format, err)
					continue
				}
				if got.Format != format || len(got.Files) != 4 {
					t.Errorf("from %s: %d outputs of a %s", format, len(got.Files), got.Format)
				}
				for _, out := range got.Files {
					if want := (image.Point{X: 200, Y: 150}); out.Width != want.X || out.Height != want.Y || len(out.Body) == 0 {
						t.Errorf("%s from %s: %d x %d, want %v", out.Format, format, out.Width, out.Height, want)
					}
				}
			}
			for _, line := range logs.FilterMessage("codec stderr").All() {
				t.Errorf("the codec wrote to stderr: %v", line.ContextMap()["line"])
			}
		})
	}
}

func testSandboxLargeImageInEveryFormat(t *testing.T) {
	t.Parallel()
	p, _ := pool(t, nil)
	got, err := p.Render(t.Context(), twoColourJPEG(t, 3000, 2000), everyFormat(1600))
	if err != nil {
		t.Fatal(err)
	}
	if got.Width != 3000 || len(got.Files) != 4 || got.Files[2].Width != 1600 {
		t.Errorf("got %d outputs of a source %d wide", len(got.Files), got.Width)
	}
}

func testSandboxOff(t *testing.T) {
	t.Parallel()
	p, logs := pool(t, func(c *codec.Config) { c.Sandbox = "off" })
	if _, err := p.Render(t.Context(), twoColourJPEG(t, 400, 300), everyFormat(200)); err != nil {
		t.Fatal(err)
	}
	if logs.FilterMessage("codecs run without a sandbox").Len() != 1 {
		t.Error("there is no warning in the log")
	}
}

// bare is the variable that makes this test binary run as a codec without seccomp.
const bare = "TEST_WITHOUT_SECCOMP"

// withoutSeccomp replaces this process by a codec for which seccomp(2) fails. It returns only on an error.
func withoutSeccomp() error {
	runtime.LockOSThread()
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4}, // the call's number
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SECCOMP, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	of := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&of)), 0, 0); err != nil {
		return err
	}
	return unix.Exec(os.Getenv(bare), os.Args, append(os.Environ(), "VIPS_BLOCK_UNTRUSTED=1"))
}

func testSandboxKernelWithoutSeccomp(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"--sandbox=on":  "enter sandbox: set filter: function not implemented; VITRINE_CODEC_SANDBOX=off disables it",
		"--sandbox=off": "ok: 4 formats",
	} {
		cmd := exec.Command(self, "--selftest", arg)
		cmd.Env = []string{bare + "=" + program, "GOCOVERDIR=" + coverage}
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (arg == "--sandbox=off") {
			t.Errorf("%s: %v, %q; want %q", arg, err, out, want)
		}
	}
}
