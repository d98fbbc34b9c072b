package main

import (
	"image"
	"image/color"
	"math"

	xdraw "golang.org/x/image/draw"
)

// landscape paints a landscape at a quarter of the size, enlarges it, and adds grain, so that it compresses like a
// photograph.
func landscape(width, height, seed int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	small := paint(width/4, height/4, seed)
	xdraw.ApproxBiLinear.Scale(m, m.Rect, small, small.Rect, xdraw.Src, nil)
	noise := uint32(seed)*2654435761 + 1
	for i := 0; i < len(m.Pix); i += 4 {
		noise = noise*1664525 + 1013904223
		grain := int(noise>>29) - 4
		for c := range 3 {
			m.Pix[i+c] = uint8(max(0, min(255, int(m.Pix[i+c])+grain)))
		}
	}
	return m
}

// paint draws a sky with a gradient, a sun, and ranges of hills that get darker towards the viewer.
func paint(width, height, seed int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	skies := [][2]color.RGBA{
		{{40, 70, 140, 255}, {250, 190, 120, 255}},
		{{90, 140, 200, 255}, {245, 225, 190, 255}},
		{{30, 40, 80, 255}, {220, 120, 120, 255}},
	}
	sky := skies[seed%len(skies)]
	for x := range width {
		u := float64(x) / float64(width)
		var ridge [4]float64
		for r := range ridge {
			k, phase := float64(3+2*r), float64(seed*7+r*3)
			ridge[r] = .45 + .13*float64(r) + .06*math.Sin(k*2*u+phase) + .025*math.Sin(3.1*k*u+2*phase) + .008*math.Sin(17*k*u+phase)
		}
		for y := range height {
			v := float64(y) / float64(height)
			c := blend(sky[0], sky[1], v*1.6)
			if d := math.Hypot((u-.68)*float64(width)/float64(height), v-.3); d < .3 {
				c = blend(c, color.RGBA{255, 244, 214, 255}, math.Min(1, .02/(d*d+.012)))
			}
			for r := range ridge {
				if v > ridge[r] {
					near := float64(r+1) / 4
					c = blend(blend(sky[1], color.RGBA{24, 44, 36, 255}, .35+.6*near), color.RGBA{12, 20, 18, 255}, (v-ridge[r])*1.2)
				}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

// blend mixes a and b; t is limited to the range from 0 (a) to 1 (b).
func blend(a, b color.RGBA, t float64) color.RGBA {
	t = math.Max(0, math.Min(1, t))
	mix := func(x, y uint8) uint8 { return uint8(float64(x) + t*(float64(y)-float64(x))) }
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 255}
}
