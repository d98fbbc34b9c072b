package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// block is a part of a file without branches, such as "file.go:10.2,12.16 3" with 3 statements.
type block struct {
	file       string
	span       string
	statements int
}

// profile holds the number of executions of each block.
type profile map[block]int

// merge adds a profile in Go's text format to p. It keeps the greater of two counts of a block.
func (p profile) merge(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "mode: ") {
			continue
		}
		b, count, err := parseLine(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		p[b] = max(p[b], count)
	}
	return lines.Err()
}

func parseLine(line string) (b block, count int, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return b, 0, fmt.Errorf("%q is not FILE:SPAN STATEMENTS COUNT", line)
	}
	colon := strings.LastIndex(fields[0], ":")
	if colon < 0 {
		return b, 0, fmt.Errorf("%q has no span", line)
	}
	b.file, b.span = fields[0][:colon], fields[0][colon+1:]
	if b.statements, err = strconv.Atoi(fields[1]); err != nil {
		return b, 0, err
	}
	count, err = strconv.Atoi(fields[2])
	return b, count, err
}

// drop removes the files for which exclude returns true.
func (p profile) drop(exclude func(file string) (bool, error)) error {
	decided := map[string]bool{}
	for b := range p {
		out, ok := decided[b.file]
		if !ok {
			var err error
			if out, err = exclude(b.file); err != nil {
				return err
			}
			decided[b.file] = out
		}
		if out {
			delete(p, b)
		}
	}
	return nil
}

// write writes the profile in Go's text format, for go tool cover.
func (p profile) write(w io.Writer) error {
	lines := make([]string, 0, len(p))
	for b, count := range p {
		lines = append(lines, fmt.Sprintf("%s:%s %d %d\n", b.file, b.span, b.statements, count))
	}
	slices.Sort(lines)
	_, err := io.WriteString(w, "mode: atomic\n"+strings.Join(lines, ""))
	return err
}

// share is the share of executed statements.
type share struct{ ran, all int }

// percent returns the share in percent, 100 if there are no statements.
func (s share) percent() float64 {
	if s.all == 0 {
		return 100
	}
	return 100 * float64(s.ran) / float64(s.all)
}

func (s share) plus(b block, count int) share {
	s.all += b.statements
	if count > 0 {
		s.ran += b.statements
	}
	return s
}

// shares returns the share of each package, and of all together.
func (p profile) shares() (packages map[string]share, total share) {
	packages = map[string]share{}
	for b, count := range p {
		name := path.Dir(b.file)
		packages[name] = packages[name].plus(b, count)
		total = total.plus(b, count)
	}
	return packages, total
}

// report prints a line for each package and for the total, which it returns.
func (p profile) report(w io.Writer) share {
	packages, total := p.shares()
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		s := packages[name]
		fmt.Fprintf(w, "coverage %6.1f%%  %5d of %5d  %s\n", s.percent(), s.ran, s.all, name)
	}
	fmt.Fprintf(w, "coverage %6.1f%%  %5d of %5d  total\n", total.percent(), total.ran, total.all)
	return total
}
