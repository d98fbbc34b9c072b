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

// TestMain lets this test binary play its own child: with FAKE_CODEC set it is a codec that behaves as its images say.
func TestMain(m *testing.M) {
	switch mode := os.Getenv("FAKE_CODEC"); mode {
	case "":
		_ = os.Setenv("VITRINE_S3_SECRET_KEY", "never to be seen by a child")
		goleak.VerifyTestMain(m)
	case "parent":
		os.Exit(fakeParent())
	default:
		os.Exit(fakeCodec(mode))
	}
}

// fakeCodec is a codec. mode says how it starts; what it does with an image is the image's first word.
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
	case "deaf": // does not end when its stdin does
		defer pause()
	}
	if flag := os.Getenv("FAKE_CODEC_FLAG"); flag != "" && !exists(flag) {
		return 7
	}
	if err := codecproto.Serve(context.Background(), os.Stdin, os.Stdout, fakeRender); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var hoard []byte // what "hog" keeps

func fakeRender(source []byte, spec pipeline.Spec) (media.Rendered, error) {
	word, rest, _ := strings.Cut(string(source), " ")
	made := fakeAnswer(spec)
	switch word {
	case "exit":
		os.Exit(3)
	case "once": // dies unless its file is there, and makes it
		if !exists(rest) {
			touch(rest)
			os.Exit(3)
		}
		made.Placeholder = strings.Join(os.Environ(), "\n")
	case "vector": // only the vector unit is its death
		if os.Getenv("VIPS_NOVECTOR") == "" {
			os.Exit(3)
		}
	case "segv":
		signal.Reset(syscall.SIGSEGV)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // what the kernel does to who takes too much memory
	case "panic":
		panic("at the disco")
	case "hang":
		touch(rest)
		pause()
	case "wait": // for its second file, when it has made its first
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
	case "gorge": // allocates without end, within the limit that cmd/codec sets
		if err := gorge(); err != nil {
			return made, media.Fail(media.Corrupt, err.Error(), nil)
		}
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
		return made, media.Fail(media.Corrupt, "the image is truncated or damaged", fmt.Errorf("premature end"))
	case "confused":
		return made, fmt.Errorf("no failure of a known kind")
	case "extra":
		made.Files = append(made.Files, made.Files[0])
	case "missing":
		made.Files = made.Files[1:]
	case "swapped":
		made.Files[0], made.Files[1] = made.Files[1], made.Files[0]
	case "sizeless":
		made.Files[0].Width = 0
	case "empty":
		made.Files[0].Body = nil
	case "none":
		made.Files = nil
	case "env":
		made.Placeholder = strings.Join(os.Environ(), "\n")
	}
	return made, nil
}

// gorge never returns, unless it cannot set its limit.
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
	most := now*uint64(os.Getpagesize()) + 256<<20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return err
	}
	for n := 16 << 20; ; n *= 2 {
		hoard = make([]byte, n)
	}
}

// fakeAnswer is a right answer; its placeholder is the process' id.
func fakeAnswer(spec pipeline.Spec) media.Rendered {
	made := media.Rendered{Format: pipeline.JPEG, Width: 40, Height: 30, Placeholder: strconv.Itoa(os.Getpid())}
	name, format := spec.DefaultOutput()
	for _, r := range spec.Renditions {
		for _, o := range r.Formats {
			made.Files = append(made.Files, media.EncodedFile{
				Name: r.Name, Format: o.Format, Width: 20, Height: 15, Score: 70.25,
				Body: []byte(r.Name + "." + string(o.Format)), Default: r.Name == name && o.Format == format,
			})
		}
	}
	return made
}

// fakeParent is a worker with one child; it tells the child's id, gives it an image that never ends, and waits.
func fakeParent() int {
	p, err := codec.New(fakeConfig(), prometheus.NewRegistry(), zap.NewNop(), codec.WithEnv("FAKE_CODEC=codec"))
	if err != nil {
		return 1
	}
	made, err := p.Render(context.Background(), []byte("ok"), fakeSpec(time.Minute))
	if err != nil {
		return 2
	}
	fmt.Println(made.Placeholder)
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

// fakeSpec asks for two renditions in two formats each.
func fakeSpec(deadline time.Duration) pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Renditions = spec.Renditions[:2]
	spec.Limits.Deadline = pipeline.Duration(deadline)
	return spec
}
