package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// number returns a variable of the environment, or a default.
func number(t *testing.T, name string, byDefault uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seeds returns the valid files, in the order of their names.
func seeds(t *testing.T) map[pipeline.Format][]seed {
	t.Helper()
	paths, err := filepath.Glob("../../pkg/adapter/imaging/testdata/varieties/*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[pipeline.Format][]seed{}
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		format := pipeline.Format(strings.TrimPrefix(filepath.Ext(path), "."))
		if format == "jpg" {
			format = pipeline.JPEG
		}
		s := seed{name: filepath.Base(path), format: format, body: body, layout: layoutOf(format, body)}
		all[format] = append(all[format], s)
	}
	return all
}

// tally counts the outcomes of the mutants of a format.
type tally struct {
	outcomes map[string]int
	slowest  time.Duration
	slow     string
}

// TestMutatedImages renders mutants of real files with real codecs, with the limits and the allocator of production. The
// same FUZZ_IMAGES_SEED gives the same mutants on every machine. FUZZ_IMAGES is the number of mutants per format, and
// FUZZ_IMAGES_ONE the number of the only mutant to try.
//
// Each render must end in time, with an image or with one of five failures. A codec that dies may cost only its own mutant;
// the number of deaths is logged. An image is a wrong success if
//   - an output does not decode, or its size is not the reported one or does not follow from the source's;
//   - the mutant is a truncated file without other changes: the seeds have no bytes after their end;
//   - Go's decoder, which is strict and shares no code with libvips, runs out of data in the same bytes;
//   - Go's decoder returns an image of another size or with another look for the same bytes;
//   - no byte of the mutant was changed, only their order, and the image does not look like its seed (if Go does not support
//     the format), or has a flat bottom, as decoders leave it after the end of the data (if Go's decoder fails with another
//     error).
//
// Changed bytes in entropy-coded data may decode to anything in any decoder. For example, libjpeg-turbo decodes a code that
// no table has as the end of a block.
func TestMutatedImages(t *testing.T) {
	t.Parallel()
	first, count := number(t, "FUZZ_IMAGES_SEED", 1), number(t, "FUZZ_IMAGES", 200)
	only := number(t, "FUZZ_IMAGES_ONE", 0)
	p, _ := pool(t, func(c *codec.Config) { c.Children = 0 })
	for format, all := range seeds(t) {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			for i, s := range all {
				rendered, err := p.Render(t.Context(), s.body, mutantSpec(0))
				if err != nil {
					t.Fatalf("seed %s fails: %v", s.name, err)
				}
				shown, wrong := soundOutputs(mutantSpec(0), rendered)
				if wrong != "" {
					t.Fatalf("seed %s is rendered wrongly: %s", s.name, wrong)
				}
				all[i].looks = gridOf(shown)
			}
			sum := tally{outcomes: map[string]int{}}
			for n := range count {
				if only == 0 || n+1 == only {
					try(t, p, &sum, first, n+1, all)
				}
			}
			counts := ""
			for _, outcome := range slices.Sorted(maps.Keys(sum.outcomes)) {
				counts += fmt.Sprintf(" %s %d", outcome, sum.outcomes[outcome])
			}
			t.Logf("%s: seed %d, %d mutants:%s; slowest %s (%s)", format, first, count, counts, sum.slowest.Round(time.Millisecond),
				sum.slow)
		})
	}
}

// mutantSpec is the default pipeline with one rendition. For odd n it is small, so that a loader shrinks while it decodes.
func mutantSpec(n uint64) pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Renditions = spec.Renditions[2:]
	if n%2 == 1 {
		spec.Renditions[0].Width = 48
	}
	return spec
}

// mutantOf returns mutant n and its seed.
func mutantOf(first, n uint64, all []seed) (mutant, seed) {
	random := rand.New(rand.NewPCG(first, n))
	m := mutator{random, all[random.IntN(len(all))], all[random.IntN(len(all))]}
	return m.mutate(), m.seed
}

// try renders mutant n of a format and records the outcome.
func try(t *testing.T, p *codec.Pool, sum *tally, first, n uint64, all []seed) {
	t.Helper()
	m, s := mutantOf(first, n, all)
	spec := mutantSpec(n)
	label := fmt.Sprintf("mutant %d of %s (%s)", n, s.name, m.how)

	// The pool ends the render at the deadline; if it does not, this context ends it a minute later.
	ctx, cancel := context.WithTimeout(t.Context(), spec.Limits.Deadline.D()+time.Minute)
	defer cancel()
	start := time.Now()
	got, err := p.Render(ctx, m.body, spec)
	if elapsed := time.Since(start); elapsed > sum.slowest {
		sum.slowest, sum.slow = elapsed, label
	}
	outcome, wrong := judged(m, s, spec, got, err)
	sum.outcomes[outcome]++
	if outcome == died || strings.HasPrefix(outcome, "codec_") {
		t.Logf("%s: %v", label, err)
	}
	if wrong != "" {
		path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%d-%d-%s", first, n, s.name))
		if err := os.WriteFile(path, m.body, 0o600); err != nil {
			t.Error(err)
		}
		t.Errorf("%s: %s; it is saved in %s", label, wrong, path)
	}
}

// died is the outcome of a mutant whose codec process died.
const died = "codec_crashed (died)"

// judged returns the outcome of a mutant, and what is wrong with it or "".
func judged(m mutant, s seed, spec pipeline.Spec, rendered media.Rendered, err error) (outcome, wrong string) {
	if err == nil {
		return "ok", wrongSuccess(m, s.looks, s.format, spec, rendered)
	}
	failure := media.FailureOf(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "hang", "it did not end at its deadline"
	case failure == nil:
		return "untyped", fmt.Sprintf("its error is a %T: %v", err, err)
	case failure.Code == media.CodecCrashed && strings.Contains(failure.Detail, "died"):
		return died, ""
	}
	expected := []media.Code{
		media.Corrupt, media.UnsupportedFormat, media.TooManyPixels, media.CodecCrashed, media.CodecTimeout,
	}
	if !slices.Contains(expected, failure.Code) {
		wrong = fmt.Sprintf("it fails with %v", err)
	}
	return string(failure.Code), wrong
}

// TestMutantVerdict checks wrongSuccess with images of which it is known what is wrong.
func TestMutantVerdict(t *testing.T) {
	t.Parallel()
	all := seeds(t)
	find := func(format pipeline.Format, name string) seed {
		return all[format][slices.IndexFunc(all[format], func(s seed) bool { return s.name == name })]
	}
	whole, heic := find(pipeline.JPEG, "baseline.jpg"), find(pipeline.HEIC, "plain.heic")
	img, err := jpeg.Decode(bytes.NewReader(whole.body))
	if err != nil {
		t.Fatal(err)
	}
	good := gridOf(img)
	grey := image.NewRGBA(img.Bounds())
	draw.Draw(grey, grey.Rect, img, image.Point{}, draw.Src)
	draw.Draw(grey, image.Rect(0, 80, 128, 96), image.NewUniform(color.Gray{Y: 128}), image.Point{}, draw.Src)
	shows := func(format pipeline.Format, img image.Image) media.Rendered {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, nil); err != nil {
			t.Fatal(err)
		}
		o := media.EncodedFile{Name: "full", Format: pipeline.JPEG, Width: 128, Height: 96, Body: b.Bytes()}
		return media.Rendered{Format: format, Width: 128, Height: 96, Files: []media.EncodedFile{o}}
	}
	broken, small := shows(pipeline.JPEG, img), shows(pipeline.JPEG, img)
	broken.Files[0].Body = broken.Files[0].Body[:300]
	small.Height = 40
	half := append(bytes.Clone(whole.body[:len(whole.body)/2]), 0xff, 0xd9)
	for name, tc := range map[string]struct {
		mutant   mutant
		rendered media.Rendered
		want     string // "": a right success
	}{
		"nothing is wrong":         {mutant{body: whole.body}, shows(pipeline.JPEG, img), ""},
		"an output is broken":      {mutant{body: whole.body}, broken, "decodes to"},
		"an output has no size":    {mutant{body: whole.body}, small, "is rendered from"},
		"the source is cut":        {mutant{body: whole.body[:900], cut: true}, shows(pipeline.JPEG, img), "is cut"},
		"the source is halved":     {mutant{body: half, order: true}, shows(pipeline.JPEG, grey), "ran out of data"},
		"the bottom is grey":       {mutant{body: whole.body}, shows(pipeline.JPEG, grey), "is flat, and not"},
		"a HEIC is unchanged":      {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, img), ""},
		"a HEIC's bottom is grey":  {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, grey), "is flat"},
		"a HEIC shows another":     {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, mirrored(img)), "shows another image"},
		"a HEIC's bytes are noise": {mutant{body: heic.body}, shows(pipeline.HEIC, mirrored(img)), ""},
	} {
		format := tc.rendered.Format
		got := wrongSuccess(tc.mutant, good, format, mutantSpec(0), tc.rendered)
		if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func mirrored(img image.Image) image.Image {
	out := image.NewRGBA(img.Bounds())
	for y := range out.Rect.Dy() {
		for x := range out.Rect.Dx() {
			out.Set(x, y, img.At(out.Rect.Dx()-1-x, y))
		}
	}
	return out
}
