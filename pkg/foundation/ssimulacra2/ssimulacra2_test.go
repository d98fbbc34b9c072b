package ssimulacra2_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"vitrine.io/pkg/foundation/ssimulacra2"
)

var write = flag.String("write", "", "directory for the images that the reference scores, instead of testing")

// pairs calls fn with each original and each distortion of it.
func pairs(fn func(name string, original, distorted ssimulacra2.Image)) {
	for what, original := range originals() {
		for how, distort := range distortions() {
			fn(what+"-"+how, original, distort(original))
		}
	}
}

func score(t testing.TB, original, distorted ssimulacra2.Image) float64 {
	t.Helper()
	r, err := ssimulacra2.NewReference(original)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Score(distorted)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// expected reads testdata/reference.txt, which another implementation wrote: make references.
func expected(t *testing.T) map[string]float64 {
	t.Helper()
	f, err := os.Open("testdata/reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scores := map[string]float64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var name string
		var score float64
		if _, err := fmt.Sscan(lines.Text(), &name, &score); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		scores[name] = score
	}
	return scores
}

func TestScore(t *testing.T) {
	t.Parallel()
	t.Run("reference_implementation", testScoreReferenceImplementation)
	t.Run("identical_images", testScoreIdenticalImages)
	t.Run("reference_is_reusable", testScoreReferenceIsReusable)
	t.Run("invalid_sizes", testScoreInvalidSizes)
}

func testScoreReferenceImplementation(t *testing.T) {
	t.Parallel()
	if *write != "" {
		pairs(func(name string, original, distorted ssimulacra2.Image) {
			for file, p := range map[string]ssimulacra2.Image{"original.ppm": original, "distorted.ppm": distorted} {
				save(t, filepath.Join(*write, name, file), p)
			}
		})
		return
	}
	want, compared, worst := expected(t), 0, 0.0
	pairs(func(name string, original, distorted ssimulacra2.Image) {
		got := score(t, original, distorted)
		compared++
		apart := math.Abs(got - want[name])
		worst = max(worst, apart)
		tolerance := 0.1
		if want[name] > 90 { // rounding errors have more weight: a sum below 0.003 is raised to the power 0.63
			tolerance = 0.5
		}
		if apart > tolerance {
			t.Errorf("%s: got %.4f, want %.4f", name, got, want[name])
		}
	})
	if compared != len(want) {
		t.Errorf("%d pairs were compared, the reference has %d", compared, len(want))
	}
	t.Logf("furthest apart: %.4f", worst)
}

func save(t *testing.T, path string, p ssimulacra2.Image) {
	t.Helper()
	text := fmt.Appendf(nil, "P6\n%d %d\n255\n", p.Width, p.Height)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, append(text, p.RGB...), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

func testScoreIdenticalImages(t *testing.T) {
	t.Parallel()
	for what, p := range originals() {
		if got := score(t, p, p); got != 100 {
			t.Errorf("%s: got %v, want 100", what, got)
		}
	}
}

func testScoreReferenceIsReusable(t *testing.T) {
	t.Parallel()
	original := originals()["cloth"]
	r, err := ssimulacra2.NewReference(original)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := blurred(2)(original)
	want := score(t, original, spoilt)
	for i := range original.RGB {
		original.RGB[i] = 0 // the reference does not retain the bytes
	}
	for range 2 {
		if got, err := r.Score(spoilt); err != nil || got != want {
			t.Errorf("got %v and %v, want %v each time", got, err, want)
		}
	}
}

func testScoreInvalidSizes(t *testing.T) {
	t.Parallel()
	r, err := ssimulacra2.NewReference(originals()["stamp"])
	if err != nil {
		t.Fatal(err)
	}
	for what, p := range map[string]ssimulacra2.Image{
		"too narrow":     {Width: 7, Height: 9, RGB: make([]byte, 189)},
		"too low":        {Width: 9, Height: 7, RGB: make([]byte, 189)},
		"too few bytes":  {Width: 8, Height: 9, RGB: make([]byte, 215)},
		"too many bytes": {Width: 8, Height: 9, RGB: make([]byte, 217)},
		"nothing":        {},
	} {
		if _, err := ssimulacra2.NewReference(p); !errors.Is(err, ssimulacra2.ErrSize) {
			t.Errorf("%s: as the original: got %v, want ErrSize", what, err)
		}
		if _, err := r.Score(p); !errors.Is(err, ssimulacra2.ErrSize) {
			t.Errorf("%s: got %v, want ErrSize", what, err)
		}
	}
	turned := ssimulacra2.Image{Width: 9, Height: 8, RGB: make([]byte, 216)}
	if _, err := r.Score(turned); !errors.Is(err, ssimulacra2.ErrSize) {
		t.Errorf("another shape: got %v, want ErrSize", err)
	}
}

// BenchmarkScore compares images of half a megapixel, as a search for a quality does.
func BenchmarkScore(b *testing.B) {
	original := paint(800, 600, func(x, y float64) (r, g, bl float64) {
		return 0.5 + 0.5*math.Sin(x/9), 0.5 + 0.5*math.Sin(y/7), 0.5 + 0.5*math.Sin((x+y)/30)
	})
	spoilt := each(func(i, v int) int { return v + i%3 })(original)
	r, err := ssimulacra2.NewReference(original)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("reference", func(b *testing.B) {
		for b.Loop() {
			if _, err := ssimulacra2.NewReference(original); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("score", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Score(spoilt); err != nil {
				b.Fatal(err)
			}
		}
	})
}
