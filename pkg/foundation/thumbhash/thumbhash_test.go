package thumbhash_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/thumbhash"
)

var write = flag.String("write", "", "directory for the images that the reference hashes, instead of testing")

// paint returns an image from a function that returns red, green, blue and alpha, 0 to 255, for a pixel.
func paint(width, height int, at func(x, y int) (r, g, b, a int)) thumbhash.Image {
	p := thumbhash.Image{Width: width, Height: height}
	for y := range height {
		for x := range width {
			r, g, b, a := at(x, y)
			p.RGBA = append(p.RGBA, byte(r), byte(g), byte(b), byte(a))
		}
	}
	return p
}

func samples() map[string]thumbhash.Image {
	mixed := func(x, y int) (r, g, b, a int) { return (x*7 + y*3) % 256, (x * y) % 256, (200 + x - y) & 255, 255 }
	return map[string]thumbhash.Image{
		"landscape": paint(100, 66, mixed),
		"portrait":  paint(40, 90, mixed),
		"square":    paint(64, 64, func(x, y int) (r, g, b, a int) { return 4 * x, 255 - 4*y, 2 * (x + y), 255 }),
		"strip":     paint(100, 3, mixed),
		"pillar":    paint(1, 77, mixed),
		"two":       paint(2, 1, func(x, _ int) (r, g, b, a int) { return 250 * x, 30, 90, 255 }),
		"cut-out": paint(80, 60, func(x, y int) (r, g, b, a int) {
			if math.Hypot(float64(x-40), float64(y-30)) > 25 {
				return 0, 0, 0, 0
			}
			return 200, 40 + 2*x, 3 * y, 255
		}),
		"veil":  paint(50, 70, func(x, y int) (r, g, b, a int) { return 255 - 3*y, 5 * x, 60, 2*x + 2*y }),
		"ghost": paint(30, 30, func(x, y int) (r, g, b, a int) { return x, y, 9, (x + y) / 30 }),
	}
}

// expected reads testdata/reference.txt, which the author's own implementation wrote: make references.
func expected(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hashes := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var name, hash string
		if _, err := fmt.Sscan(lines.Text(), &name, &hash); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		hashes[name] = hash
	}
	return hashes
}

func TestHash(t *testing.T) {
	t.Parallel()
	t.Run("reference_implementation", testHashReferenceImplementation)
	t.Run("single_colour", testHashSingleColour)
	t.Run("invalid_sizes", testHashInvalidSizes)
}

func testHashReferenceImplementation(t *testing.T) {
	t.Parallel()
	all := samples()
	if *write != "" {
		for name, p := range all {
			body := append([]byte{byte(p.Width), byte(p.Height)}, p.RGBA...)
			if err := os.WriteFile(filepath.Join(*write, name+".rgba"), body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	want := expected(t)
	if len(want) != len(all) {
		t.Errorf("the reference has %d images, want %d", len(want), len(all))
	}
	for name, p := range all {
		hash, err := thumbhash.Hash(p)
		if got := hex.EncodeToString(hash); err != nil || !alike(got, want[name]) {
			t.Errorf("%s: got %s and %v, want %s", name, got, err, want[name])
		}
	}
}

// alike reports whether two hashes are equal except for terms that differ by one step: a term of zero lies exactly between
// two steps.
func alike(got, want string) bool {
	const head = 2 * 5
	if len(got) != len(want) || len(got) < head || got[:head] != want[:head] {
		return false
	}
	digit := func(c byte) int { return strings.IndexByte("0123456789abcdef", c) }
	for i := head; i < len(got); i++ {
		if step := digit(got[i]) - digit(want[i]); step < -1 || step > 1 {
			return false
		}
	}
	return true
}

func testHashSingleColour(t *testing.T) {
	t.Parallel()
	white, err := thumbhash.Hash(paint(20, 10, func(int, int) (r, g, b, a int) { return 255, 255, 255, 255 }))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(white); got != "3f08020480"+strings.Repeat("00", 14) {
		t.Errorf("got %s", got)
	}
	nothing, err := thumbhash.Hash(paint(9, 9, func(int, int) (r, g, b, a int) { return 12, 34, 56, 0 }))
	if err != nil || nothing[5] != 0 {
		t.Errorf("got %x and %v, want a transparent image", nothing, err)
	}
}

func testHashInvalidSizes(t *testing.T) {
	t.Parallel()
	for _, p := range []thumbhash.Image{
		{}, {Width: 1, Height: 0}, {Width: 0, Height: 1}, {Width: 101, Height: 1, RGBA: make([]byte, 404)},
		{Width: 1, Height: 101, RGBA: make([]byte, 404)}, {Width: 2, Height: 2, RGBA: make([]byte, 15)},
		{Width: -2, Height: -2, RGBA: make([]byte, 16)},
	} {
		if hash, err := thumbhash.Hash(p); !errors.Is(err, thumbhash.ErrSize) {
			t.Errorf("%d x %d: got %x and %v, want ErrSize", p.Width, p.Height, hash, err)
		}
	}
}
