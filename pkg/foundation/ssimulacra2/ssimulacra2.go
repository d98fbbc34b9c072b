package ssimulacra2

import (
	"errors"
	"fmt"
	"math"
)

const (
	scales = 6 // at most: the original size and five halvings

	// MinSide is the minimum width and height in pixels of images that can be compared.
	MinSide = 8
)

// ErrSize is returned if an image is too small, has another size than the reference, or has a wrong number of bytes.
var ErrSize = errors.New("ssimulacra2: wrong size")

// Image is an opaque image: 8-bit sRGB, three bytes per pixel, row by row without padding.
type Image struct {
	Width, Height int // pixels
	RGB           []byte
}

func (p Image) check() error {
	switch {
	case p.Width < MinSide || p.Height < MinSide:
		return fmt.Errorf("%w: %d x %d pixels, at least %d each way are needed", ErrSize, p.Width, p.Height, MinSide)
	case len(p.RGB) != 3*p.Width*p.Height:
		return fmt.Errorf("%w: %d bytes, %d x %d pixels have %d", ErrSize, len(p.RGB), p.Width, p.Height, 3*p.Width*p.Height)
	default:
		return nil
	}
}

// Reference holds what is computed from an original, for comparisons with it.
type Reference struct {
	width, height int
	colours       colours
	filter        *filter
	levels        []level
}

// level holds what is computed from the original on one scale.
type level struct {
	width, height int
	xyb           planes // positive
	mean          planes // weighted mean of xyb around each pixel
	square        planes // weighted mean of xyb squared
}

// NewReference returns a reference. It does not retain the image's bytes. The error wraps ErrSize if the image cannot be
// compared.
func NewReference(original Image) (*Reference, error) {
	if err := original.check(); err != nil {
		return nil, err
	}
	r := &Reference{
		width: original.Width, height: original.Height, colours: newColours(), filter: newFilter(original.Width, original.Height),
	}
	product := make([]float32, original.Width*original.Height)
	r.eachScale(original, func(_, width, height int, xyb planes) {
		l := level{width: width, height: height, xyb: xyb, mean: newPlanes(len(xyb[0])), square: newPlanes(len(xyb[0]))}
		for c := range xyb {
			r.filter.blur(l.mean[c], xyb[c], width, height)
			multiply(product, xyb[c], xyb[c])
			r.filter.blur(l.square[c], product, width, height)
		}
		r.levels = append(r.levels, l)
	})
	return r, nil
}

// Score returns how similar the image looks to the original: 100 if it is identical, 90 if the difference is not visible, 70
// for high, 50 for medium, 30 for low quality. It has no lower bound. The error wraps ErrSize if the image has another size
// than the original.
func (r *Reference) Score(distorted Image) (float64, error) {
	if err := distorted.check(); err != nil {
		return 0, err
	}
	if distorted.Width != r.width || distorted.Height != r.height {
		return 0, fmt.Errorf("%w: %d x %d pixels, the original has %d x %d",
			ErrSize, distorted.Width, distorted.Height, r.width, r.height)
	}
	size := r.width * r.height
	product, mean, square, both := make([]float32, size), make([]float32, size), make([]float32, size), make([]float32, size)
	errs := make([][3]errorMap, len(r.levels))
	r.eachScale(distorted, func(scale, width, height int, xyb planes) {
		l, n := r.levels[scale], width*height
		for c := range xyb {
			r.filter.blur(mean[:n], xyb[c], width, height)
			multiply(product, xyb[c], xyb[c])
			r.filter.blur(square[:n], product, width, height)
			multiply(product, l.xyb[c], xyb[c])
			r.filter.blur(both[:n], product, width, height)
			errs[scale][c] = compare(
				planeStats{l.xyb[c], l.mean[c], l.square[c]}, planeStats{xyb[c], mean[:n], square[:n]}, both[:n])
		}
	})
	return weigh(errs), nil
}

// eachScale calls visit with the image's planes on each scale, the largest first.
func (r *Reference) eachScale(p Image, visit func(scale, width, height int, xyb planes)) {
	width, height := p.Width, p.Height
	linear := r.colours.linear(p.RGB)
	for scale := range scales {
		if width < MinSide || height < MinSide {
			return
		}
		if scale > 0 {
			linear, width, height = halve(linear, width, height)
		}
		visit(scale, width, height, toXYB(linear))
	}
}

// multiply writes the product of the planes a and b to product.
func multiply(product, a, b []float32) {
	b, product = b[:len(a)], product[:len(a)]
	for i, v := range a {
		product[i] = v * b[i]
	}
}

// planeStats holds one plane of an image on one scale, with its weighted mean and the weighted mean of its square.
type planeStats struct{ plane, mean, square []float32 }

// errorMap holds the three kinds of error of a plane, each as its mean and as its 4-norm.
type errorMap struct{ structure, ringing, blurring [2]float64 }

// compare returns the errors of one plane on one scale. both is the weighted mean of the product of the two planes.
func compare(original, distorted planeStats, both []float32) errorMap {
	const stabilizer = 0.0009 // reduces the influence of flat areas
	var e errorMap
	n := len(original.plane)
	o, om, os := original.plane[:n], original.mean[:n], original.square[:n]
	d, dm, ds := distorted.plane[:n], distorted.mean[:n], distorted.square[:n]
	both = both[:n]
	for i := range n {
		apart := om[i] - dm[i]
		varied := (os[i] - om[i]*om[i]) + (ds[i] - dm[i]*dm[i]) // without the brackets equal images would not score exactly 100
		similar := (1 - apart*apart) * (2*(both[i]-om[i]*dm[i]) + stabilizer) / (varied + stabilizer)
		add(&e.structure, 1-float64(similar))
		edge := (1+math.Abs(float64(d[i]-dm[i])))/(1+math.Abs(float64(o[i]-om[i]))) - 1
		add(&e.ringing, edge)   // an edge where the original is smooth
		add(&e.blurring, -edge) // smooth where the original has an edge
	}
	for _, sum := range []*[2]float64{&e.structure, &e.ringing, &e.blurring} {
		sum[0] /= float64(n)
		sum[1] = math.Sqrt(math.Sqrt(sum[1] / float64(n)))
	}
	return e
}

// add adds err, if it is positive, to the sum of errors and its fourth power to the sum of fourth powers.
func add(sum *[2]float64, err float64) {
	if err > 0 {
		sum[0] += err
		square := err * err
		sum[1] += square * square
	}
}
