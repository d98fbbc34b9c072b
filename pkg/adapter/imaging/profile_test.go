package imaging_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// vec is a colour of three numbers; a matrix converts one into another.
type (
	vec    [3]float64
	matrix [3]vec // rows
)

func (m matrix) times(v vec) vec {
	var out vec
	for i, row := range m {
		out[i] = row[0]*v[0] + row[1]*v[1] + row[2]*v[2]
	}
	return out
}

func (m matrix) after(n matrix) matrix {
	var out matrix
	for i := range 3 {
		for j := range 3 {
			out[i][j] = m[i][0]*n[0][j] + m[i][1]*n[1][j] + m[i][2]*n[2][j]
		}
	}
	return out
}

func (m matrix) inverse() matrix {
	minor := func(i, j int) float64 {
		a, b, c, d := (i+1)%3, (i+2)%3, (j+1)%3, (j+2)%3
		return m[a][c]*m[b][d] - m[a][d]*m[b][c]
	}
	determinant := m[0][0]*minor(0, 0) + m[0][1]*minor(0, 1) + m[0][2]*minor(0, 2)
	var out matrix
	for i := range 3 {
		for j := range 3 {
			out[i][j] = minor(j, i) / determinant
		}
	}
	return out
}

// space is an RGB colour space with D65 for white.
type space struct {
	red, green, blue [2]float64 // x and y
	decode           func(float64) float64
	encode           func(float64) float64
	curve            []float64 // the same as ICC's parametric curve: g, or g a b c d
}

// srgbCurve is IEC 61966-2-1's, which Display P3 shares.
func srgbCurve() space {
	return space{
		decode: func(v float64) float64 {
			if v <= 0.04045 {
				return v / 12.92
			}
			return math.Pow((v+0.055)/1.055, 2.4)
		},
		encode: func(v float64) float64 {
			if v <= 0.0031308 {
				return 12.92 * v
			}
			return 1.055*math.Pow(v, 1/2.4) - 0.055
		},
		curve: []float64{2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045},
	}
}

func power(gamma float64) space {
	return space{
		decode: func(v float64) float64 { return math.Pow(v, gamma) },
		encode: func(v float64) float64 { return math.Pow(v, 1/gamma) }, curve: []float64{gamma},
	}
}

// The primaries are those of the standards: IEC 61966-2-1, SMPTE RP 431-2 (with D65), Adobe RGB (1998).
func srgb() space {
	s := srgbCurve()
	s.red, s.green, s.blue = [2]float64{0.64, 0.33}, [2]float64{0.30, 0.60}, [2]float64{0.15, 0.06}
	return s
}

func displayP3() space {
	s := srgbCurve()
	s.red, s.green, s.blue = [2]float64{0.680, 0.320}, [2]float64{0.265, 0.690}, [2]float64{0.150, 0.060}
	return s
}

func adobeRGB() space {
	s := power(563.0 / 256)
	s.red, s.green, s.blue = [2]float64{0.64, 0.33}, [2]float64{0.21, 0.71}, [2]float64{0.15, 0.06}
	return s
}

func d65() vec { return vec{0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290} }
func d50() vec { return vec{0.9642, 1, 0.8249} }

// toXYZ returns the matrix from linear RGB to XYZ under D65.
func (s space) toXYZ() matrix {
	var columns matrix
	for j, p := range [][2]float64{s.red, s.green, s.blue} {
		columns[0][j], columns[1][j], columns[2][j] = p[0]/p[1], 1, (1-p[0]-p[1])/p[1]
	}
	scale := columns.inverse().times(d65())
	for i := range 3 {
		for j := range 3 {
			columns[i][j] *= scale[j]
		}
	}
	return columns
}

// in returns the colour, 0 to 1 each, in another space; values outside of that space are clipped, as simple colour
// management does.
func (s space) in(other space, rgb vec) vec {
	linear := vec{s.decode(rgb[0]), s.decode(rgb[1]), s.decode(rgb[2])}
	out := other.toXYZ().inverse().after(s.toXYZ()).times(linear)
	for i := range out {
		out[i] = other.encode(min(1, max(0, out[i])))
	}
	return out
}

// adapted is Bradford's matrix from D65 to D50, the white of profiles.
func adapted() matrix {
	cone := matrix{{0.8951, 0.2664, -0.1614}, {-0.7502, 1.7135, 0.0367}, {0.0389, -0.0685, 1.0296}}
	from, to := cone.times(d65()), cone.times(d50())
	return cone.inverse().after(matrix{{to[0] / from[0], 0, 0}, {0, to[1] / from[1], 0}, {0, 0, to[2] / from[2]}}).after(cone)
}

// profile returns a display ICC profile of the space, with a matrix and a curve.
func (s space) profile() []byte {
	m := adapted().after(s.toXYZ())
	column := func(j int) []byte { return xyzTag(vec{m[0][j], m[1][j], m[2][j]}) }
	return iccProfile("mntr", "RGB ", "XYZ ", []iccTag{
		{"rXYZ", column(0)},
		{"gXYZ", column(1)},
		{"bXYZ", column(2)},
		{"rTRC", curveTag(s.curve)},
		{"gTRC", curveTag(s.curve)},
		{"bTRC", curveTag(s.curve)},
	})
}

// greyProfile returns a profile of a grey scale with that curve.
func greyProfile(s space) []byte {
	return iccProfile("mntr", "GRAY", "XYZ ", []iccTag{{"kTRC", curveTag(s.curve)}})
}

// inkProfile returns a CMYK profile that gives each of the 16 mixtures of full and no ink a Lab colour, the last ink first
// to change.
func inkProfile(lab [16]vec) []byte {
	table := []byte("mft1\x00\x00\x00\x00\x04\x03\x02\x00")
	for i := range 9 {
		table = fixed(table, float64((i+3)/4-(i+2)/4)) // 1 0 0 0 1 0 0 0 1
	}
	ramps := func(n int) {
		for range n {
			for v := range 256 {
				table = append(table, byte(v))
			}
		}
	}
	ramps(4)
	for _, c := range lab {
		table = append(table, byte(math.Round(c[0]*2.55)), byte(math.Round(c[1]+128)), byte(math.Round(c[2]+128)))
	}
	ramps(3)
	return iccProfile("prtr", "CMYK", "Lab ", []iccTag{{"A2B0", table}})
}

type iccTag struct {
	name string
	body []byte
}

// iccProfile returns a profile of version 4 with the given tags.
func iccProfile(class, device, connection string, tags []iccTag) []byte {
	text := func(s string) []byte {
		b := []byte("mluc\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0cenUS\x00\x00\x00\x00\x00\x00\x00\x1c")
		b[23] = byte(2 * len(s))
		for _, c := range []byte(s) {
			b = append(b, 0, c)
		}
		return b
	}
	tags = append(slices.Clone(tags), iccTag{"desc", text("test")}, iccTag{"cprt", text("none")}, iccTag{"wtpt", xyzTag(d50())})
	head := make([]byte, 128)
	head[8] = 4
	copy(head[12:], class+device+connection)
	copy(head[24:], "\x07\xea\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00acsp")
	copy(head[68:], xyzTag(d50())[8:])
	out := binary.BigEndian.AppendUint32(head, uint32(len(tags)))
	at := len(out) + 12*len(tags)
	var bodies []byte
	for _, tag := range tags {
		out = append(out, tag.name...)
		out = binary.BigEndian.AppendUint32(out, uint32(at+len(bodies)))
		out = binary.BigEndian.AppendUint32(out, uint32(len(tag.body)))
		bodies = append(bodies, tag.body...)
		bodies = append(bodies, bytes.Repeat([]byte{0}, -len(bodies)&3)...)
	}
	out = append(out, bodies...)
	binary.BigEndian.PutUint32(out, uint32(len(out)))
	return out
}

// fixed appends a number as ICC's s15Fixed16.
func fixed(b []byte, v float64) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(v*65536))))
}

func xyzTag(v vec) []byte {
	return fixed(fixed(fixed([]byte("XYZ \x00\x00\x00\x00"), v[0]), v[1]), v[2])
}

func curveTag(parameters []float64) []byte {
	b := []byte("para\x00\x00\x00\x00\x00\x00\x00\x00")
	if len(parameters) > 1 {
		b[9] = 3
	}
	for _, v := range parameters {
		b = fixed(b, v)
	}
	return b
}

// lab returns an sRGB colour, 0 to 1 each, as CIE Lab under D50, as profiles have it.
func lab(rgb vec) vec {
	s := srgb()
	linear := vec{s.decode(rgb[0]), s.decode(rgb[1]), s.decode(rgb[2])}
	xyz, white := adapted().after(s.toXYZ()).times(linear), d50()
	f := func(i int) float64 {
		v := xyz[i] / white[i]
		if v > 216.0/24389 {
			return math.Cbrt(v)
		}
		return (24389.0/27*v + 16) / 116
	}
	return vec{116*f(1) - 16, 500 * (f(0) - f(1)), 200 * (f(1) - f(2))}
}

// ciede2000 returns the distance of two Lab colours: 1 is just visible side by side for a trained eye, 2.3 for most people,
// 10 is another colour. (G. Sharma, W. Wu, E. Dalal: The CIEDE2000 Color-Difference Formula, 2005.)
func ciede2000(a, b vec) float64 {
	rad, deg := math.Pi/180, 180/math.Pi
	mean := (math.Hypot(a[1], a[2]) + math.Hypot(b[1], b[2])) / 2
	g := (1 - math.Sqrt(math.Pow(mean, 7)/(math.Pow(mean, 7)+math.Pow(25, 7)))) / 2
	polar := func(c vec) (chroma, hue float64) {
		x := (1 + g) * c[1]
		if hue = math.Atan2(c[2], x) * deg; hue < 0 {
			hue += 360
		}
		return math.Hypot(x, c[2]), hue
	}
	c1, h1 := polar(a)
	c2, h2 := polar(b)
	dh, h := 0.0, h1+h2
	if c1*c2 != 0 {
		dh, h = h2-h1, (h1+h2)/2
		if math.Abs(h1-h2) > 180 {
			dh -= math.Copysign(360, dh)
			h += math.Copysign(180, 360-h1-h2)
		}
	}
	dl, dc := b[0]-a[0], c2-c1
	dH := 2 * math.Sqrt(c1*c2) * math.Sin(dh/2*rad)
	l, c := (a[0]+b[0])/2, (c1+c2)/2
	t := 1 - 0.17*math.Cos((h-30)*rad) + 0.24*math.Cos(2*h*rad) + 0.32*math.Cos((3*h+6)*rad) - 0.20*math.Cos((4*h-63)*rad)
	turn := 30 * math.Exp(-(h-275)/25*(h-275)/25)
	sl := 1 + 0.015*(l-50)*(l-50)/math.Sqrt(20+(l-50)*(l-50))
	sc, sh := 1+0.045*c, 1+0.015*c*t
	rt := -math.Sin(2*turn*rad) * 2 * math.Sqrt(math.Pow(c, 7)/(math.Pow(c, 7)+math.Pow(25, 7)))
	x, y, z := dl/sl, dc/sc, dH/sh
	return math.Sqrt(x*x + y*y + z*z + rt*y*z)
}
