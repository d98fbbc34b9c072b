package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"vitrine.io/pkg/foundation/pipeline"
)

// seed is a valid file.
type seed struct {
	name   string
	format pipeline.Format
	body   []byte
	layout layout
	looks  grid
}

// mutant is a changed seed.
type mutant struct {
	body []byte
	how  string
	cut  bool // truncated, without other changes
	// order: bytes were removed, repeated or moved, and none was changed. Entropy-coded data with changed bytes may decode to
	// anything, including a flat area.
	order bool
}

// mutator changes one seed. The same random numbers and files give the same mutants.
type mutator struct {
	*rand.Rand
	seed
	other seed // of the same format
}

// mutate returns one mutant. For one in four, both the order and the values of bytes are changed.
func (m mutator) mutate() mutant {
	noises := []func([]byte) ([]byte, string){m.flipBits, m.setBytes, m.zeros, m.sides}
	orders := []func() ([]byte, string){m.shrink, m.shrink, m.shrink, m.duplicate, m.remove, m.swap, m.garbage}
	mixtures := []func() ([]byte, string){m.lengths, m.grow, m.splice}
	order := func() ([]byte, string) { return orders[m.IntN(len(orders))]() }
	noise := func(body []byte) ([]byte, string) {
		if len(body) == 0 {
			return body, "nothing"
		}
		return noises[m.IntN(len(noises))](body)
	}
	switch n := m.IntN(20); {
	case n < 4:
		body, how := m.truncate()
		return mutant{body: body, how: how, cut: true, order: true}
	case n < 9:
		body, how := noise(bytes.Clone(m.body))
		return mutant{body: body, how: how}
	case n < 13:
		body, how := order()
		return mutant{body: body, how: how, order: true}
	case n < 15:
		body, how := mixtures[m.IntN(len(mixtures))]()
		return mutant{body: body, how: how}
	default:
		body, first := order()
		body, second := noise(body)
		return mutant{body: body, how: first + ", then " + second}
	}
}

// offset returns a random offset in n bytes, in one case of three among the first hundred, where the headers are.
func (m mutator) offset(n int) int {
	if m.IntN(3) == 0 {
		n = min(n, 100)
	}
	return m.IntN(n)
}

// anyPart returns a random part of the seed.
func (m mutator) anyPart() part { return m.layout.parts[m.IntN(len(m.layout.parts))] }

func (m mutator) flipBits(b []byte) ([]byte, string) {
	n := 1 + m.IntN(8)
	for range n {
		b[m.offset(len(b))] ^= 1 << m.IntN(8)
	}
	return m.maybeSummed(b), fmt.Sprintf("%d bits flipped", n)
}

func (m mutator) setBytes(b []byte) ([]byte, string) {
	n := 1 + m.IntN(16)
	for range n {
		b[m.offset(len(b))] = []byte{0, 1, 0x7f, 0x80, 0xfe, 0xff, byte(m.IntN(256))}[m.IntN(7)]
	}
	return m.maybeSummed(b), fmt.Sprintf("%d bytes set", n)
}

func (m mutator) zeros(b []byte) ([]byte, string) {
	at := m.offset(len(b))
	n := min(1+m.IntN(1<<m.IntN(12)), len(b)-at)
	clear(b[at : at+n])
	return m.maybeSummed(b), fmt.Sprintf("%d zeros at %d", n, at)
}

// maybeSummed corrects the checksums of a PNG two times out of three, so that decoders read the data.
func (m mutator) maybeSummed(b []byte) []byte {
	if m.format == pipeline.PNG && m.IntN(3) > 0 {
		summed(b)
	}
	return b
}

// sides sets a width, a height or an offset to an extreme.
func (m mutator) sides(b []byte) ([]byte, string) {
	f := m.layout.sides[m.IntN(len(m.layout.sides))]
	if f.at+f.width > len(b) {
		return b, "nothing"
	}
	maxValue := uint64(1)<<(8*f.width) - 1
	was := f.get(b)
	values := []uint64{
		0, 1, maxValue, maxValue - 1, maxValue/2 + 1, was + 1, was - 1, 2 * was, was / 2, 16383, 16384, 30000, 65535, 1 << 20,
	}
	v := values[m.IntN(len(values))] & maxValue
	f.set(b, v)
	if m.format == pipeline.PNG {
		summed(b)
	}
	return b, fmt.Sprintf("the side at %d set to %d", f.at, v)
}

// truncate removes the end: at any offset, or near the start, the body or the end of a part.
func (m mutator) truncate() ([]byte, string) {
	n := m.IntN(len(m.body))
	switch p := m.anyPart(); m.IntN(4) {
	case 0:
		n = p.at + m.IntN(4)
	case 1:
		n = p.body + m.IntN(4)
	case 2:
		n = p.end - m.IntN(4)
	}
	n = max(0, min(n, len(m.body)-1))
	return m.body[:n:n], fmt.Sprintf("cut to %d of %d bytes", n, len(m.body))
}

// shrink removes bytes of a part and corrects all lengths: the container stays valid, its content does not.
func (m mutator) shrink() ([]byte, string) {
	p := m.anyPart()
	for range 4 { // prefers a large part
		if q := m.anyPart(); q.size() > p.size() {
			p = q
		}
	}
	if p.body >= p.end {
		return bytes.Clone(m.body), "nothing"
	}
	from := p.body + m.IntN(p.end-p.body)
	to := from + 1 + m.IntN(p.end-from)
	end := p.end
	if m.format == pipeline.PNG {
		end -= 4 // the checksum stays
	}
	if to = min(to, end); m.IntN(2) == 0 {
		to = end
	}
	from = min(from, to)
	return m.layout.replaced(m.format, m.body, from, to, nil, true), fmt.Sprintf("%d bytes taken out at %d", to-from, from)
}

// grow inserts bytes into a part, with or without corrected lengths.
func (m mutator) grow() ([]byte, string) {
	p, more := m.anyPart(), make([]byte, 1+m.IntN(64))
	for i := range more {
		more[i] = byte(m.Uint32())
	}
	honest := m.IntN(2) == 0
	return m.layout.replaced(m.format, m.body, p.body, p.body, more, honest),
		fmt.Sprintf("%d bytes put in at %d, honest %v", len(more), p.body, honest)
}

// lengths sets the length of a part to a wrong value.
func (m mutator) lengths() ([]byte, string) {
	b := bytes.Clone(m.body)
	for range 20 {
		f := m.anyPart().length
		if f.width == 0 {
			continue
		}
		maxValue := uint64(1)<<(8*f.width) - 1
		was := f.get(b)
		values := []uint64{
			0, 1, 2, was - 1, was + 1, was - 2, was + 2, was / 2, was * 2, maxValue, maxValue/2 + 1, uint64(len(b) - f.at),
		}
		v := values[m.IntN(len(values))]
		f.set(b, v&maxValue)
		return b, fmt.Sprintf("the length at %d set to %d", f.at, v&maxValue)
	}
	return b, "nothing"
}

func (m mutator) duplicate() ([]byte, string) {
	p, honest := m.anyPart(), m.IntN(2) == 0
	return m.layout.replaced(m.format, m.body, p.end, p.end, m.body[p.at:p.end], honest),
		fmt.Sprintf("the part at %d doubled, honest %v", p.at, honest)
}

func (m mutator) remove() ([]byte, string) {
	p, honest := m.anyPart(), m.IntN(2) == 0
	outer := m.layout
	outer.parts = slices.DeleteFunc(slices.Clone(outer.parts), func(q part) bool { return q == p })
	return outer.replaced(m.format, m.body, p.at, p.end, nil, honest),
		fmt.Sprintf("the part at %d removed, honest %v", p.at, honest)
}

// swap exchanges two parts that do not overlap.
func (m mutator) swap() ([]byte, string) {
	for range 20 {
		p, q := m.anyPart(), m.anyPart()
		if p.end <= q.at {
			b := m.body
			return slices.Concat(b[:p.at], b[q.at:q.end], b[p.end:q.at], b[p.at:p.end], b[q.end:]),
				fmt.Sprintf("the parts at %d and %d swapped", p.at, q.at)
		}
	}
	return bytes.Clone(m.body), "nothing"
}

// splice continues with another file of the format, at the start of a part or at any offset.
func (m mutator) splice() ([]byte, string) {
	p, q := m.anyPart(), m.other.layout.parts[m.IntN(len(m.other.layout.parts))]
	from, to := p.at, q.at
	if m.IntN(2) == 0 {
		from, to = m.IntN(len(m.body)), m.IntN(len(m.other.body))
	}
	return slices.Concat(m.body[:from], m.other.body[to:]), fmt.Sprintf("spliced at %d with %s from %d", from, m.other.name, to)
}

func (m mutator) garbage() ([]byte, string) {
	b := bytes.Clone(m.body)
	n := 1 + m.IntN(1<<m.IntN(12))
	for range n {
		b = append(b, byte(m.Uint32()))
	}
	return b, fmt.Sprintf("%d random bytes appended", n)
}
