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

// number returns a variable of the environment, or what it is without.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seeds returns the good files, in the order of their names.
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

// tally is what became of a format's mutants.
type tally struct {
	outcomes map[string]int
	slowest  time.Duration
	slow     string
}

// TestMutatedImages gives mutants of real files to real codecs, with the limits and the allocator that they have in
// production. The same FUZZ_IMAGES_SEED makes the same mutants everywhere; FUZZ_IMAGES is their number a format,
// FUZZ_IMAGES_ONE the only one to try.
//
// Each must end in time, in an image or in one of five failures. A codec that dies costs its mutant and no other; how many
// died is told. An image is a wrong success when
//   - an output does not decode, or has not the size that is told or that follows from the source's;
//   - the mutant is a file whose end was taken away, and nothing else: our files have nothing behind their end;
//   - Go's decoder, which is strict and shares no code with ours, runs out of data in the same bytes: something is missing;
//   - Go's decoder makes an image of the same bytes, of another size or one that does not look like ours;
//   - no byte of the mutant was changed, only their order, and the image does not look like what it was made of (where Go
//     does not know the format), or has a flat bottom, as decoders leave it that go on without data (where Go's decoder
//     fails in another way).
//
// Changed bytes in entropy-coded data decode to anything, in any decoder, and that is nobody's mistake: libjpeg-turbo, for
// one, takes a code that no table has for the end of a block.
func TestMutatedImages(t *testing.T) {
	t.Parallel()
	first, count := number(t, "FUZZ_IMAGES_SEED", 1), number(t, "FUZZ_IMAGES", 200)
	only := number(t, "FUZZ_IMAGES_ONE", 0)
	p, _ := pool(t, func(c *codec.Config) { c.Children = 0 })
	for format, all := range seeds(t) {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			for i, s := range all {
				made, err := p.Render(t.Context(), s.body, mutantSpec(0))
				if err != nil {
					t.Fatalf("%s is no good seed: %v", s.name, err)
				}
				shown, wrong := soundOutputs(mutantSpec(0), made)
				if wrong != "" {
					t.Fatalf("%s is no good seed: %s", s.name, wrong)
				}
				all[i].looks = gridOf(shown)
			}
			sum := tally{outcomes: map[string]int{}}
			for n := range count {
				if only == 0 || n+1 == only {
					try(t, p, &sum, first, n+1, all)
				}
			}
			told := ""
			for _, outcome := range slices.Sorted(maps.Keys(sum.outcomes)) {
				told += fmt.Sprintf(" %s %d", outcome, sum.outcomes[outcome])
			}
			t.Logf("%s: seed %d, %d mutants:%s; slowest %s (%s)", format, first, count, told, sum.slowest.Round(time.Millisecond),
				sum.slow)
		})
	}
}

// mutantSpec is the default pipeline with one rendition: every second time a small one, for which a loader shrinks while it
// decodes.
func mutantSpec(n uint64) pipeline.Spec {
	spec := pipeline.Default().Spec
	spec.Renditions = spec.Renditions[2:]
	if n%2 == 1 {
		spec.Renditions[0].Width = 48
	}
	return spec
}

// mutantOf returns mutant n, and what it was made of.
func mutantOf(first, n uint64, all []seed) (mutant, seed) {
	random := rand.New(rand.NewPCG(first, n))
	m := mutator{random, all[random.IntN(len(all))], all[random.IntN(len(all))]}
	return m.mutate(), m.seed
}

// try makes mutant n of a format and looks at what the codec says to it.
func try(t *testing.T, p *codec.Pool, sum *tally, first, n uint64, all []seed) {
	t.Helper()
	m, s := mutantOf(first, n, all)
	spec := mutantSpec(n)
	told := fmt.Sprintf("mutant %d of %s (%s)", n, s.name, m.how)

	// The pool ends it at the deadline; a minute more, and the pool has not.
	ctx, cancel := context.WithTimeout(t.Context(), spec.Limits.Deadline.D()+time.Minute)
	defer cancel()
	began := time.Now()
	got, err := p.Render(ctx, m.body, spec)
	if took := time.Since(began); took > sum.slowest {
		sum.slowest, sum.slow = took, told
	}
	outcome, wrong := judged(m, s, spec, got, err)
	sum.outcomes[outcome]++
	if outcome == died || strings.HasPrefix(outcome, "codec_") {
		t.Logf("%s: %v", told, err)
	}
	if wrong != "" {
		path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%d-%d-%s", first, n, s.name))
		if err := os.WriteFile(path, m.body, 0o600); err != nil {
			t.Error(err)
		}
		t.Errorf("%s: %s; it is in %s", told, wrong, path)
	}
}

// died is the outcome of a mutant whose codec did not live to fail.
const died = "codec_crashed (died)"

// judged returns what a mutant came to, and what is wrong with that.
func judged(m mutant, s seed, spec pipeline.Spec, made media.Rendered, err error) (outcome, wrong string) {
	if err == nil {
		return "ok", wrongSuccess(m, s.looks, s.format, spec, made)
	}
	failure := media.FailureOf(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "hang", "it was not ended at its deadline"
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

// TestMutantVerdict gives the judge images of which it is known what is wrong with them.
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
		mutant mutant
		made   media.Rendered
		want   string // "": a right success
	}{
		"nothing is wrong":         {mutant{body: whole.body}, shows(pipeline.JPEG, img), ""},
		"an output is broken":      {mutant{body: whole.body}, broken, "decodes to"},
		"an output has no size":    {mutant{body: whole.body}, small, "is made of"},
		"the source is cut":        {mutant{body: whole.body[:900], cut: true}, shows(pipeline.JPEG, img), "is cut"},
		"the source is a half":     {mutant{body: half, order: true}, shows(pipeline.JPEG, grey), "ran out of data"},
		"the bottom is grey":       {mutant{body: whole.body}, shows(pipeline.JPEG, grey), "is flat, and not"},
		"a HEIC is what it was":    {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, img), ""},
		"a HEIC's bottom is grey":  {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, grey), "is flat"},
		"a HEIC shows another":     {mutant{body: heic.body, order: true}, shows(pipeline.HEIC, mirrored(img)), "does not show"},
		"a HEIC's bytes are noise": {mutant{body: heic.body}, shows(pipeline.HEIC, mirrored(img)), ""},
	} {
		format := tc.made.Format
		got := wrongSuccess(tc.mutant, good, format, mutantSpec(0), tc.made)
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
