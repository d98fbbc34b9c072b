package ssimulacra2_test

import (
	"math"

	"vitrine.io/pkg/foundation/ssimulacra2"
)

// paint returns an image from a function that returns red, green and blue, 0 to 1, for a pixel.
func paint(width, height int, at func(x, y float64) (r, g, b float64)) ssimulacra2.Image {
	p := ssimulacra2.Image{Width: width, Height: height, RGB: make([]byte, 0, 3*width*height)}
	for y := range height {
		for x := range width {
			r, g, b := at(float64(x), float64(y))
			for _, v := range []float64{r, g, b} {
				p.RGB = append(p.RGB, byte(math.Round(255*min(1, max(0, v)))))
			}
		}
	}
	return p
}

// originals returns images of several kinds and sizes: odd sides, and sides at which scales end.
func originals() map[string]ssimulacra2.Image {
	zone := func(x, y float64) (r, g, b float64) { // rings that become finer outwards
		d := (x-80)*(x-80) + (y-60)*(y-60)
		return 0.5 + 0.5*math.Sin(d/150), 0.5 + 0.5*math.Sin(d/170), 0.5 + 0.5*math.Cos(d/190)
	}
	return map[string]ssimulacra2.Image{
		"sky":   paint(200, 120, func(x, y float64) (r, g, b float64) { return y / 240, 0.3 + y/300, 0.6 + x/900 }),
		"rings": paint(160, 120, zone),
		"cloth": paint(133, 97, func(x, y float64) (r, g, b float64) {
			v := 0.5 + 0.25*math.Sin(x*1.7)*math.Sin(y*1.3) + 0.2*math.Sin(x/9+y/7)
			return v, v * 0.8, 0.9 - v/2
		}),
		"signs": paint(256, 144, func(x, y float64) (r, g, b float64) { // hard edges, saturated
			on := (int(x)/16+int(y)/24)%2 == 0
			if on {
				return 0.95, 0.1 + x/600, 0.05
			}
			return 0.05, 0.2, 0.4 + y/300
		}),
		"night": paint(96, 128, func(x, y float64) (r, g, b float64) {
			v := 0.06 + 0.04*math.Sin(x/3)*math.Cos(y/5)
			if math.Hypot(x-48, y-40) < 6 {
				v = 0.9
			}
			return v, v * 0.9, v * 1.3
		}),
		"strip": paint(301, 16, func(x, y float64) (r, g, b float64) { return zone(x/2, y*4) }),
		"stamp": paint(8, 9, func(x, y float64) (r, g, b float64) { return x / 8, y / 9, 0.5 }),
	}
}

// distortions returns ways to degrade an image, both typical and untypical of codecs.
func distortions() map[string]func(p ssimulacra2.Image) ssimulacra2.Image {
	return map[string]func(p ssimulacra2.Image) ssimulacra2.Image{
		"same":     func(p ssimulacra2.Image) ssimulacra2.Image { return p },
		"levels":   each(func(_, v int) int { return v / 24 * 24 }),
		"brighter": each(func(_, v int) int { return v + 6 }),
		"noise":    each(func(i, v int) int { return v + (i*7919+i*i%104729)%17 - 8 }),
		"speck":    each(func(i, v int) int { return v + 3*(i%5/4) }),
		"blocks":   around(8, 3), // nearer to the mean of each block
		"mosaic":   around(8, 0),
		"blur":     blurred(1),
		"smear":    blurred(4),
	}
}

// each returns a distortion that changes every byte.
func each(fn func(i, v int) int) func(ssimulacra2.Image) ssimulacra2.Image {
	return func(p ssimulacra2.Image) ssimulacra2.Image {
		out := make([]byte, len(p.RGB))
		for i, v := range p.RGB {
			out[i] = byte(min(255, max(0, fn(i, int(v)))))
		}
		return ssimulacra2.Image{Width: p.Width, Height: p.Height, RGB: out}
	}
}

// mean returns the mean of a channel in the part of a rectangle that lies in the image.
func mean(p ssimulacra2.Image, c, left, top, right, bottom int) int {
	sum, n := 0, 0
	for y := max(0, top); y < min(p.Height, bottom); y++ {
		for x := max(0, left); x < min(p.Width, right); x++ {
			sum, n = sum+int(p.RGB[3*(y*p.Width+x)+c]), n+1
		}
	}
	return sum / n
}

// around returns a distortion that mixes each value with the mean of its block: keep sevenths of the value remain.
func around(side, keep int) func(ssimulacra2.Image) ssimulacra2.Image {
	return func(p ssimulacra2.Image) ssimulacra2.Image {
		return each(func(i, v int) int {
			x, y := i/3%p.Width/side*side, i/3/p.Width/side*side
			return (keep*v + (7-keep)*mean(p, i%3, x, y, x+side, y+side)) / 7
		})(p)
	}
}

func blurred(by int) func(ssimulacra2.Image) ssimulacra2.Image {
	return func(p ssimulacra2.Image) ssimulacra2.Image {
		return each(func(i, _ int) int {
			x, y := i/3%p.Width, i/3/p.Width
			return mean(p, i%3, x-by, y-by, x+by+1, y+by+1)
		})(p)
	}
}
