package imageserver

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"path"
	"strings"
	"sync"
)

// content describes an image. Two paths with equal content have the same file.
type content struct {
	format string // jpg or png
	size   image.Point
	shade  int // colours
}

// shades is the number of colour variants.
const shades = 4

// contentOf returns the content of a path. It reports false if the path is not an image's.
func contentOf(p string) (content, bool) {
	c := content{format: strings.TrimPrefix(path.Ext(p), ".")}
	if c.format != "jpg" && c.format != "png" {
		return c, false
	}
	for part := range strings.SplitSeq(p, "/") {
		var size image.Point
		if n, err := fmt.Sscanf(part, "%dx%d", &size.X, &size.Y); n != 2 || err != nil {
			continue
		}
		c.size = size
		return c, size.X > 0 && size.Y > 0 && size.X <= maxSide && size.Y <= maxSide
	}
	sizes := [...]image.Point{
		{X: 64, Y: 64}, {X: 320, Y: 200}, {X: 200, Y: 320}, {X: 640, Y: 480}, {X: 480, Y: 640}, {X: 900, Y: 300},
		{X: 801, Y: 601}, {X: 1024, Y: 768}, {X: 33, Y: 47},
	}
	number := int(crc32.ChecksumIEEE([]byte(p)))
	c.size, c.shade = sizes[number%len(sizes)], number/len(sizes)%shades
	return c, true
}

// file returns the encoded image. It is drawn only once.
func (s *Server) file(c content) []byte {
	entry, _ := s.files.LoadOrStore(c, sync.OnceValue(func() []byte {
		var file bytes.Buffer
		if c.format == "png" {
			_ = png.Encode(&file, scene(c.size, c.shade)) // writing to a buffer does not fail
		} else {
			_ = jpeg.Encode(&file, scene(c.size, c.shade), &jpeg.Options{Quality: 90})
		}
		return file.Bytes()
	}))
	draw, _ := entry.(func() []byte)
	return draw()
}

// Scene returns the image that the server sends for a path with a size: colour gradients with grain as in photographs. Width
// and height are in pixels.
func Scene(width, height int) image.Image { return scene(image.Pt(width, height), 0) }

func scene(size image.Point, shade int) image.Image {
	m := image.NewRGBA(image.Rectangle{Max: size})
	grain := uint32(1)
	for y := range size.Y {
		for x := range size.X {
			u, v := float64(x)/float64(size.X), float64(y)/float64(size.Y)
			wave := 124 + 120*math.Sin(9*u+float64(shade))*math.Cos(7*v-float64(shade))
			grain = grain*1664525 + 1013904223
			g := uint8(grain >> 29)
			m.SetRGBA(x, y, color.RGBA{uint8(248*u) + g, uint8(248*v) + g, uint8(wave) + g, 255})
		}
	}
	return m
}

// hugeHeader is the beginning of a PNG of 40000 x 40000 pixels.
func hugeHeader() []byte {
	ihdr := []byte{'I', 'H', 'D', 'R', 0, 0, 0x9c, 0x40, 0, 0, 0x9c, 0x40, 8, 2, 0, 0, 0}
	sum := crc32.ChecksumIEEE(ihdr)
	head := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\r"), ihdr...)
	return append(head, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}
