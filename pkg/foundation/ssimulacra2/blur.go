package ssimulacra2

import "math"

const (
	sigma   = 1.5 // pixels
	radius  = 5   // pixels to each side: round(3.2795 sigma + 0.2546)
	cosines = 3   // cosines that approximate the Gaussian
)

// filter blurs planes with a Gaussian in a time that does not depend on its width: "Recursive implementation of the Gaussian
// filter using truncated cosine functions" (D. Charalampidis, 2016), as the author of the metric does. Values outside of a
// plane are zero.
type filter struct {
	in, last    [cosines]float32 // weights of the new value and of the last result; the result before has -1
	between     []float32        // after the rows, before the columns
	now, l1, l2 [cosines][]float32
}

func newFilter(width, height int) *filter {
	f := &filter{between: make([]float32, width*height)}
	for k := range cosines {
		f.now[k], f.l1[k], f.l2[k] = make([]float32, width), make([]float32, width), make([]float32, width)
	}
	f.in, f.last = coefficients()
	return f
}

// coefficients returns the weights of the cosines that are closest to the Gaussian. Numbers in brackets are equations of the
// paper.
func coefficients() (in, last [cosines]float32) {
	var omega, p, r, rho [cosines]float64
	for k := range cosines {
		omega[k] = float64(2*k+1) * math.Pi / (2 * radius)
		sign := float64(1 - 2*(k%2))
		p[k] = sign / math.Tan(omega[k]/2)                                      // (37)
		r[k] = sign * p[k] * p[k] / math.Sin(omega[k])                          // (44)
		rho[k] = math.Exp(-0.5*sigma*sigma*omega[k]*omega[k]) / float64(radius) // (50)
	}
	minor := func(i, j int) float64 { return p[i]*r[j] - r[i]*p[j] }
	z1, z3 := minor(1, 2)/minor(0, 1), minor(2, 0)/minor(0, 1) // (52)
	beta := solve(                                             // (53), (55), (56)
		[3][3]float64{{p[0], p[1], p[2]}, {r[0], r[1], r[2]}, {z1, z3, 1}},
		[3]float64{1, radius*radius - sigma*sigma, z1*rho[0] + z3*rho[1] + rho[2]})
	for k := range cosines {
		in[k] = float32(-beta[k] * math.Cos(omega[k]*(radius+1))) // (33)
		last[k] = float32(2 * math.Cos(omega[k]))
	}
	return in, last
}

// solve returns x with m x = b, by Cramer's rule.
func solve(m [3][3]float64, b [3]float64) (x [3]float64) {
	det := func(m [3][3]float64) float64 {
		return m[0][0]*(m[1][1]*m[2][2]-m[1][2]*m[2][1]) - m[0][1]*(m[1][0]*m[2][2]-m[1][2]*m[2][0]) +
			m[0][2]*(m[1][0]*m[2][1]-m[1][1]*m[2][0])
	}
	whole := det(m)
	for k := range x {
		other := m
		for i := range other {
			other[i][k] = b[i]
		}
		x[k] = det(other) / whole
	}
	return x
}

// blur writes the blurred plane to dst.
func (f *filter) blur(dst, src []float32, width, height int) {
	for y := range height {
		f.row(f.between[y*width:][:width], src[y*width:][:width])
	}
	f.columns(dst, f.between, width, height)
}

func (f *filter) row(dst, src []float32) {
	in, last := f.in, f.last
	var a1, a2, b1, b2, c1, c2 float32
	for n := 1 - radius; n < len(src); n++ {
		var sum float32
		if left := n - radius - 1; left >= 0 {
			sum = src[left]
		}
		if right := n + radius - 1; right < len(src) {
			sum += src[right]
		}
		a := in[0]*sum + last[0]*a1 - a2
		b := in[1]*sum + last[1]*b1 - b2
		c := in[2]*sum + last[2]*c1 - c2
		a2, a1, b2, b1, c2, c1 = a1, a, b1, b, c1, c
		if n >= 0 {
			dst[n] = a + b + c
		}
	}
}

// columns filters all columns at the same time, row by row: the values of a row are adjacent in memory.
func (f *filter) columns(dst, src []float32, width, height int) {
	now, l1, l2 := f.now, f.l1, f.l2
	for k := range cosines {
		now[k], l1[k], l2[k] = now[k][:width], l1[k][:width], l2[k][:width]
		clear(l1[k])
		clear(l2[k])
	}
	nothing := make([]float32, width)
	for n := 1 - radius; n < height; n++ {
		upper, lower := nothing, nothing
		if top := n - radius - 1; top >= 0 {
			upper = src[top*width:][:width]
		}
		if bottom := n + radius - 1; bottom < height {
			lower = src[bottom*width:][:width]
		}
		for k := range cosines {
			f.step(k, now[k], l1[k], l2[k], upper, lower)
		}
		if n >= 0 {
			out, a, b, c := dst[n*width:][:width], now[0], now[1], now[2]
			for x := range out {
				out[x] = a[x] + b[x] + c[x]
			}
		}
		now, l1, l2 = l2, now, l1
	}
}

// step computes one row of one cosine.
func (f *filter) step(k int, now, l1, l2, upper, lower []float32) {
	in, last := f.in[k], f.last[k]
	l1, l2, upper, lower = l1[:len(now)], l2[:len(now)], upper[:len(now)], lower[:len(now)]
	for x := range now {
		now[x] = in*(upper[x]+lower[x]) + last*l1[x] - l2[x]
	}
}
