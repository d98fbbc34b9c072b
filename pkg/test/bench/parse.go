package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// result is one line of benchmark output, such as
//
//	BenchmarkGetProduct/hit-2   250000   95031 ns/op   0.93 ratio   310 p50-us
type result struct {
	name    string             // without "Benchmark" and the number of CPUs: "GetProduct/hit"
	metrics map[string]float64 // by unit
}

// report is the parsed output of the benchmarks.
type report struct {
	machine []string // lines such as "cpu: ...", in order, without repetitions
	cpus    string   // GOMAXPROCS
	results []result
}

// The format of Go's benchmark output: https://go.dev/design/14313-benchmark-format.
var (
	resultLine  = regexp.MustCompile(`^Benchmark(\S+?)(?:-(\d+))?\s+\d+\s+(.*\S)\s*$`)
	machineLine = regexp.MustCompile(`^(?:goos|goarch|cpu): `)
)

// parse parses the output of go test -bench. It ignores lines that are neither results nor about the machine.
func parse(r io.Reader) (report, error) {
	rep := report{cpus: "1"} // go test prints no suffix for one CPU
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if machineLine.MatchString(line) && !seen[line] {
			seen[line] = true
			rep.machine = append(rep.machine, line)
		}
		match := resultLine.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		metrics, err := parseMetrics(match[3])
		if err != nil {
			return report{}, fmt.Errorf("%q: %w", line, err)
		}
		if match[2] != "" {
			rep.cpus = match[2]
		}
		rep.results = append(rep.results, result{name: match[1], metrics: metrics})
	}
	return rep, lines.Err()
}

// parseMetrics parses pairs of a number and a unit.
func parseMetrics(text string) (map[string]float64, error) {
	words := strings.Fields(text)
	if len(words)%2 != 0 {
		return nil, fmt.Errorf("a number without a unit")
	}
	metrics := map[string]float64{}
	for i := 0; i < len(words); i += 2 {
		value, err := strconv.ParseFloat(words[i], 64)
		if err != nil {
			return nil, err
		}
		metrics[words[i+1]] = value
	}
	return metrics, nil
}
