package main_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	_ "golang.org/x/image/webp" // decodes the renditions

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// program is the path of the built codec, coverage the directory of its coverage data.
var program, coverage string

// TestMain builds the codec, or uses the one in VITRINE_TEST_BIN_DIR.
func TestMain(m *testing.M) {
	if os.Getenv(bare) != "" {
		fmt.Fprintln(os.Stderr, withoutSeccomp())
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	scratch, err := os.MkdirTemp("", "codec")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if coverage = os.Getenv("GOCOVERDIR"); coverage == "" {
		coverage = scratch
	}
	dir := os.Getenv("VITRINE_TEST_BIN_DIR")
	if dir == "" {
		dir = scratch
		if out, err := exec.Command("go", "build", "-cover", "-o", dir, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build codec: %v\n%s\nIt needs libvips-dev, pkg-config and a C compiler.\n", err, out)
			return 1
		}
	}
	program = filepath.Join(dir, "codec")
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// twoColourJPEG returns a JPEG whose left half is red and whose right half is blue.
func twoColourJPEG(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.RGBA{R: 200, A: 255}
			if x >= width/2 {
				c = color.RGBA{B: 200, A: 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pool(
	t *testing.T, change func(*codec.Config), options ...codec.Option,
) (*codec.Pool, *observer.ObservedLogs) {
	t.Helper()
	cfg := codec.Config{
		Path: program, Children: 1, RecycleAfter: 500, MaxRSS: 512 << 20, AddressSpace: 1536 << 20, StartTimeout: time.Minute,
		StartBackoff: time.Second, ShutdownGrace: time.Minute, Sandbox: "on", Preload: "auto",
	}
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.InfoLevel)
	options = append(options, codec.WithEnv("GOCOVERDIR="+coverage))
	p, err := codec.New(cfg, prometheus.NewRegistry(), zap.New(core), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p, logs
}

// longDeadlineSpec is the default pipeline with a deadline that is not exceeded on a busy machine.
func longDeadlineSpec() pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Limits.Deadline = pipeline.Duration(5 * time.Minute)
	return spec
}

func TestRender(t *testing.T) {
	t.Parallel()
	t.Run("default_pipeline", testRenderDefaultPipeline)
	t.Run("untrusted_formats_are_refused", testRenderUntrustedFormatsAreRefused)
}

func testRenderDefaultPipeline(t *testing.T) {
	t.Parallel()
	p, logs := pool(t, nil)
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := p.Render(t.Context(), twoColourJPEG(t, 1200, 900), longDeadlineSpec())
	if err != nil {
		t.Fatal(err)
	}
	if got.Format != pipeline.JPEG || got.Width != 1200 || got.Height != 900 || len(got.Files) != 6 {
		t.Fatalf("got a %s of %d x %d with %d outputs", got.Format, got.Width, got.Height, len(got.Files))
	}
	sizes := map[string]image.Point{"thumb": {320, 240}, "card": {800, 600}, "full": {1200, 900}}
	for _, o := range got.Files {
		img, format, err := image.Decode(bytes.NewReader(o.Body))
		if err != nil {
			t.Fatalf("%s as %s: %v", o.Name, o.Format, err)
		}
		if want := sizes[o.Name]; img.Bounds().Size() != want || format != string(o.Format) {
			t.Errorf("%s as %s is a %s of %v, want %v", o.Name, o.Format, format, img.Bounds().Size(), want)
		}
		left, _, _, _ := img.At(o.Width/4, o.Height/2).RGBA()
		_, _, right, _ := img.At(3*o.Width/4, o.Height/2).RGBA()
		if left>>8 < 180 || right>>8 < 180 {
			t.Errorf("%s as %s: left is %d red, right is %d blue, want about 200", o.Name, o.Format, left>>8, right>>8)
		}
		if o.Default != (o.Name == "full" && o.Format == pipeline.JPEG) {
			t.Errorf("%s as %s: default is %v", o.Name, o.Format, o.Default)
		}
	}
	if _, err := p.Render(t.Context(), got.Files[0].Body[:200], longDeadlineSpec()); media.FailureOf(err) == nil ||
		media.FailureOf(err).Code != media.Corrupt {
		t.Errorf("a truncated image: %v, want corrupt", err)
	}
	if n := logs.FilterMessage("codec stderr").Len(); n != 0 {
		t.Errorf("the codec wrote to stderr: %v", logs.All())
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	t.Run("large_image_fits_in_memory", testLimitsLargeImageFitsInMemory)
	t.Run("memory_exceeded_costs_one_attempt", testLimitsMemoryExceededCostsOneAttempt)
	t.Run("pixels_claimed_in_header", testLimitsPixelsClaimedInHeader)
}

func testLimitsLargeImageFitsInMemory(t *testing.T) {
	t.Parallel()
	// 36 million pixels that cannot be shrunk while they are decoded.
	var source bytes.Buffer
	fast := &png.Encoder{CompressionLevel: png.BestSpeed}
	if err := fast.Encode(&source, image.NewRGBA(image.Rect(0, 0, 6000, 6000))); err != nil {
		t.Fatal(err)
	}
	p, _ := pool(t, func(c *codec.Config) { c.AddressSpace = 512 << 20 })
	if _, err := p.Render(t.Context(), source.Bytes(), longDeadlineSpec()); err != nil {
		t.Error(err)
	}
}

func testLimitsMemoryExceededCostsOneAttempt(t *testing.T) {
	t.Parallel()
	// A frame of a GIF is decoded whole: 196 MB of pixels with a limit of 128 MiB.
	var source bytes.Buffer
	if err := gif.Encode(&source, image.NewPaletted(image.Rect(0, 0, 7000, 7000), palette.WebSafe), nil); err != nil {
		t.Fatal(err)
	}
	p, _ := pool(t, func(c *codec.Config) { c.AddressSpace = 128 << 20 })
	_, err := p.Render(t.Context(), source.Bytes(), longDeadlineSpec())
	if failure := media.FailureOf(err); failure == nil || failure.Code != media.CodecCrashed {
		t.Fatalf("got %v, want codec_crashed", err)
	}
	spec := longDeadlineSpec()
	spec.Renditions = spec.Renditions[:1]
	if _, err := p.Render(t.Context(), twoColourJPEG(t, 400, 300), spec); err != nil {
		t.Errorf("the next image: %v", err)
	}
}

func command(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(env, "GOCOVERDIR="+coverage)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	guarded := []string{"VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0"}
	for name, tc := range map[string]struct {
		env  []string
		args []string
		want string
		ok   bool
	}{
		"version":          {nil, []string{"--version"}, "libvips 8.", true},
		"help":             {nil, []string{"--help"}, "-selftest", true},
		"selftest":         {guarded, []string{"--selftest", "--address-space=536870912"}, "ok: 4 formats", true},
		"end of input":     {guarded, nil, "H{\"protocol\":4}", true},
		"selftest outside": {guarded, []string{"--selftest", "--sandbox=off"}, "ok: 4 formats", true},
		"outside":          {guarded, []string{"--sandbox=off"}, "H{\"protocol\":4}", true},
		"half a sandbox":   {guarded, []string{"--sandbox=half"}, "sandbox is \"half\", not on or off", false},
		"an unknown flag":  {guarded, []string{"--colour"}, "flag provided but not defined", false},
		"unguarded":        {nil, []string{"--selftest"}, "VIPS_BLOCK_UNTRUSTED is not 1", false},
		"a negative limit": {guarded, []string{"--address-space=-99999999999999"}, "limit memory", false},
	} {
		out, err := command(t, tc.env, tc.args...)
		if !strings.Contains(out, tc.want) || (err == nil) != tc.ok {
			t.Errorf("%s: %v, %q; want %q", name, err, out, tc.want)
		}
	}
}

func testRenderUntrustedFormatsAreRefused(t *testing.T) {
	t.Parallel()
	p, _ := pool(t, nil)
	for name, source := range map[string]string{
		"SVG": `<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><image href="/etc/hostname"/></svg>`,
		"PPM": "P6 1 1 255 abc", "PDF": "%PDF-1.4\n",
	} {
		_, err := p.Render(t.Context(), []byte(source), longDeadlineSpec())
		if failure := media.FailureOf(err); failure == nil || failure.Code != media.UnsupportedFormat {
			t.Errorf("%s: %v, want unsupported_format", name, err)
		}
	}
}
