package thumbhash

import (
	"errors"
	"fmt"
	"math"
)

// MaxSide is the maximum width and height in pixels of an image that can be hashed: more would not change the hash visibly.
const MaxSide = 100

// ErrSize is returned if an image is empty or too large, or has a wrong number of bytes.
var ErrSize = errors.New("thumbhash: wrong size")

// Image is a small image: 8-bit sRGB with straight (not premultiplied) alpha, four bytes per pixel, row by row without
// padding.
type Image struct {
	Width, Height int // pixels, 1 to MaxSide
	RGBA          []byte
}

// Hash returns the hash of the image, at most 25 bytes. The error wraps ErrSize if the size is invalid.
func Hash(p Image) ([]byte, error) {
	if p.Width < 1 || p.Height < 1 || p.Width > MaxSide || p.Height > MaxSide || len(p.RGBA) != 4*p.Width*p.Height {
		return nil, fmt.Errorf("%w: %d bytes for %d x %d pixels", ErrSize, len(p.RGBA), p.Width, p.Height)
	}
	planes, transparent := split(p)
	maxTerms := 7.0 // of brightness along the longer side
	if transparent {
		maxTerms = 5
	}
	longer := float64(max(p.Width, p.Height))
	across := max(1, round(maxTerms*float64(p.Width)/longer))
	down := max(1, round(maxTerms*float64(p.Height)/longer))
	l := transform(p, planes.l, max(3, across), max(3, down))
	yb, rg := transform(p, planes.yb, 3, 3), transform(p, planes.rg, 3, 3)

	shorter, landscape := across, p.Width > p.Height // the hash contains the shorter one; the decoder derives the longer one
	if landscape {
		shorter = down
	}
	head := round(63*l.mean) | round(31.5+31.5*yb.mean)<<6 | round(31.5+31.5*rg.mean)<<12 | round(31*l.scale)<<18 |
		bit(transparent)<<23
	more := shorter | round(63*yb.scale)<<3 | round(63*rg.scale)<<9 | bit(landscape)<<15
	hash := []byte{byte(head), byte(head >> 8), byte(head >> 16), byte(more), byte(more >> 8)}
	channels := []channel{l, yb, rg}
	if transparent {
		a := transform(p, planes.a, 5, 5)
		hash = append(hash, byte(round(15*a.mean)|round(15*a.scale)<<4))
		channels = append(channels, a)
	}
	return appendTerms(hash, channels), nil
}

// appendTerms appends every term as four bits.
func appendTerms(hash []byte, channels []channel) []byte {
	n := 0
	for _, c := range channels {
		for _, term := range c.terms {
			nibble := byte(round(15 * term))
			if n%2 == 0 {
				hash = append(hash, nibble)
			} else {
				hash[len(hash)-1] |= nibble << 4
			}
			n++
		}
	}
	return hash
}

// planes holds the brightness (0 to 1), yellow minus blue (-1 to 1), red minus green (-1 to 1) and alpha (0 to 1) of an
// image.
type planes struct{ l, yb, rg, a []float64 }

// split composes the image over its mean colour, so that transparent pixels have no influence, and returns its planes.
func split(p Image) (all planes, transparent bool) {
	var r, g, b, a float64
	at := func(i int) (r, g, b, a float64) {
		px := p.RGBA[4*i:]
		return float64(px[0]) / 255, float64(px[1]) / 255, float64(px[2]) / 255, float64(px[3]) / 255
	}
	n := p.Width * p.Height
	for i := range n {
		pr, pg, pb, pa := at(i)
		r, g, b, a = r+pa*pr, g+pa*pg, b+pa*pb, a+pa
	}
	if a > 0 {
		r, g, b = r/a, g/a, b/a
	}
	for i := range n {
		pr, pg, pb, pa := at(i)
		pr, pg, pb = r*(1-pa)+pa*pr, g*(1-pa)+pa*pg, b*(1-pa)+pa*pb
		all.l = append(all.l, (pr+pg+pb)/3)
		all.yb = append(all.yb, (pr+pg)/2-pb)
		all.rg = append(all.rg, pr-pg)
		all.a = append(all.a, pa)
	}
	return all, a < float64(n)
}

// channel is the cosine transform of a plane.
type channel struct {
	mean  float64
	scale float64   // the largest absolute term; the terms are relative to it
	terms []float64 // 0 to 1; 0.5 is zero
}

// flat is below the terms of any image that is not a single colour; smaller terms are rounding errors.
const flat = 1e-9

// transform returns the terms above the diagonal of a block of that many terms across and down.
func transform(p Image, plane []float64, across, down int) channel {
	var c channel
	along := make([]float64, p.Width)
	for v := range down {
		for u := 0; u*down < across*(down-v); u++ {
			for x := range along {
				along[x] = math.Cos(math.Pi / float64(p.Width) * float64(u) * (float64(x) + 0.5))
			}
			var term float64
			for y := range p.Height {
				upright := math.Cos(math.Pi / float64(p.Height) * float64(v) * (float64(y) + 0.5))
				for x, cosine := range along {
					term += plane[x+y*p.Width] * cosine * upright
				}
			}
			term /= float64(p.Width * p.Height)
			if u == 0 && v == 0 {
				c.mean = term
				continue
			}
			c.terms = append(c.terms, term)
			c.scale = max(c.scale, math.Abs(term))
		}
	}
	if c.scale < flat {
		return channel{mean: c.mean, terms: make([]float64, len(c.terms))}
	}
	for i, term := range c.terms {
		c.terms[i] = 0.5 + 0.5/c.scale*term
	}
	return c
}

// round rounds halves up, as JavaScript does.
func round(v float64) int { return int(math.Floor(v + 0.5)) }

func bit(set bool) int {
	if set {
		return 1
	}
	return 0
}
