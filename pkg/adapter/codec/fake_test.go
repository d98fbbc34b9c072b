package codec_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// TestMain makes this test binary its own child: with FAKE_CODEC set it is a codec whose behaviour the images select.
func TestMain(m *testing.M) {
	switch mode := os.Getenv("FAKE_CODEC"); mode {
	case "":
		_ = os.Setenv("VITRINE_S3_SECRET_KEY", "not for children")
		goleak.VerifyTestMain(m)
	case "parent":
		os.Exit(fakeParent())
	default:
		os.Exit(fakeCodec(mode))
	}
}

// fakeCodec is a codec. mode selects how it starts; the first word of an image selects how it renders.
func fakeCodec(mode string) int {
	switch mode {
	case "exit":
		fmt.Fprintln(os.Stderr, "no libvips here")
		return 7
	case "mute":
		pause()
	case "other":
		fmt.Println("\x00\x00\x00\x0eH{\"protocol\":9}")
		pause()
	case "deaf": // does not exit at the end of its stdin
		defer pause()
	}
	if flag := os.Getenv("FAKE_CODEC_FLAG"); flag != "" && !exists(flag) {
		return 7
	}
	if err := codecproto.Serve(context.Background(), os.Stdin, os.Stdout, fakeRender, fakeCompare); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var hoard []byte // memory that "hog" keeps

func fakeRender(source []byte, spec pipeline.Spec) (media.Rendered, error) {
	word, rest, _ := strings.Cut(string(source), " ")
	rendered := fakeAnswer(spec)
	switch word {
	case "exit":
		os.Exit(3)
	case "once": // exits unless its file exists, and creates it
		if !exists(rest) {
			touch(rest)
			os.Exit(3)
		}
		rendered.Placeholder = strings.Join(os.Environ(), "\n")
	case "vector": // exits unless it runs without SIMD instructions
		if os.Getenv("VIPS_NOVECTOR") == "" {
			os.Exit(3)
		}
	case "segv":
		signal.Reset(syscall.SIGSEGV)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // as the kernel does when memory runs out
	case "panic":
		panic("at the disco")
	case "hang":
		touch(rest)
		pause()
	case "wait": // creates its first file, then waits for its second one
		started, release, _ := strings.Cut(rest, " ")
		touch(started)
		for range time.Tick(time.Millisecond) {
			if exists(release) {
				break
			}
		}
	case "close":
		os.Stdout.Close()
		pause()
	case "garbage":
		fmt.Println("VIPS-WARNING: something was printed to stdout")
	case "raw":
		_, _ = os.Stdout.WriteString(rest)
		pause()
	case "half":
		_, _ = os.Stdout.Write(append(binary.BigEndian.AppendUint32(nil, 100), 'A', '{'))
		os.Exit(0)
	case "gorge": // allocates memory up to a limit like that of cmd/codec
		if err := gorge(); err != nil {
			return rendered, media.Fail(media.Corrupt, err.Error(), nil)
		}
	case "burn": // uses that much CPU time
		burn(rest)
	case "hog":
		hoard = make([]byte, 200<<20)
		for i := 0; i < len(hoard); i += os.Getpagesize() {
			hoard[i] = 1
		}
	case "say":
		n, _ := strconv.Atoi(rest)
		for i := range n {
			fmt.Fprintln(os.Stderr, "line", i, strings.Repeat("x", 100))
		}
	case "corrupt":
		return rendered, media.Fail(media.Corrupt, "the image is truncated or damaged", fmt.Errorf("premature end"))
	case "confused":
		return rendered, fmt.Errorf("no failure of a known kind")
	case "extra":
		rendered.Files = append(rendered.Files, rendered.Files[0])
	case "missing":
		rendered.Files = rendered.Files[1:]
	case "swapped":
		rendered.Files[0], rendered.Files[1] = rendered.Files[1], rendered.Files[0]
	case "sizeless":
		rendered.Files[0].Width = 0
	case "empty":
		rendered.Files[0].Body = nil
	case "none":
		rendered.Files = nil
	case "env":
		rendered.Placeholder = strings.Join(os.Environ(), "\n")
	}
	return rendered, nil
}

// burn uses CPU time of this process, by its own clock.
func burn(text string) {
	want, _ := time.ParseDuration(text)
	var before, now syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for now = before; time.Duration(now.Utime.Nano()-before.Utime.Nano()) < want; {
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &now)
	}
}

// gorge allocates until the process crashes. It returns only if it cannot set its limit.
func gorge() error {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	pages, _, _ := strings.Cut(string(statm), " ")
	now, err := strconv.ParseUint(pages, 10, 64)
	if err != nil {
		return err
	}
	limit := now*uint64(os.Getpagesize()) + 256<<20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	for n := 16 << 20; ; n *= 2 {
		hoard = make([]byte, n)
	}
}

// fakeAnswer returns a valid answer; its placeholder is the id of the process.
func fakeAnswer(spec pipeline.Spec) media.Rendered {
	rendered := media.Rendered{Format: pipeline.JPEG, Width: 40, Height: 30, Placeholder: strconv.Itoa(os.Getpid())}
	name, format := spec.DefaultOutput()
	for _, r := range spec.Renditions {
		for _, o := range r.Formats {
			rendered.Files = append(rendered.Files, media.EncodedFile{
				Name: r.Name, Format: o.Format, Width: 20, Height: 15, Score: 70.25,
				Body: []byte(r.Name + "." + string(o.Format)), Default: r.Name == name && o.Format == format,
			})
		}
	}
	return rendered
}

// fakeParent is a worker with one child: it prints the child's id, renders an image that hangs, and waits.
func fakeParent() int {
	p, err := codec.New(fakeConfig(), prometheus.NewRegistry(), zap.NewNop(), codec.WithEnv("FAKE_CODEC=codec"))
	if err != nil {
		return 1
	}
	rendered, err := p.Render(context.Background(), []byte("ok"), fakeSpec(time.Minute))
	if err != nil {
		return 2
	}
	fmt.Println(rendered.Placeholder)
	_, _ = p.Render(context.Background(), []byte("hang "+os.Getenv("FAKE_CODEC_HANG")), fakeSpec(time.Hour))
	return 3
}

// pause never returns.
func pause() {
	for {
		_, _ = syscall.Select(0, nil, nil, nil, nil)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func touch(path string) {
	if path != "" {
		_ = os.WriteFile(path, nil, 0o600)
	}
}

func fakeConfig() codec.Config {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return codec.Config{
		Path: self, Children: 1, RecycleAfter: 1000, MaxRSS: 1 << 40, StartTimeout: 5 * time.Minute,
		StartBackoff: 500 * time.Millisecond, ShutdownGrace: 20 * time.Second, Sandbox: "on", Preload: "none",
	}
}

// fakeSpec requests two renditions in two formats each.
func fakeSpec(deadline time.Duration) pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Renditions = spec.Renditions[:2]
	spec.Limits.Deadline = pipeline.Duration(deadline)
	return spec
}

// fakeCompare returns the length of each file as its score. The first word of an image selects how, as for fakeRender.
func fakeCompare(source []byte, spec pipeline.Spec, files []media.Comparison) ([]media.Score, error) {
	if _, err := fakeRender(source, spec); err != nil {
		return nil, err
	}
	found := make([]media.Score, len(files))
	for i, f := range files {
		found[i] = media.Score{Value: float64(len(f.Body)), OK: true}
	}
	return found, nil
}
