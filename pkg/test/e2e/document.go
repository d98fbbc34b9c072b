package main

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The program writes only between the marks; the rest of the document is edited by hand.
const (
	beginMark = "<!-- make e2e writes from here -->"
	endMark   = "<!-- to here -->"
)

// summary is the document's tables: the result of each stage when it last passed.
type summary struct {
	rows   map[string]string // by stage name
	ratios map[string]string
}

var (
	rowLine   = regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|(.*)\\|$")
	ratioLine = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([0-9.]+) \\|$")
)

// readSummary reads the results of earlier runs.
func readSummary(document []byte) (summary, error) {
	_, own, _, err := cut(document)
	if err != nil {
		return summary{}, err
	}
	s := summary{rows: map[string]string{}, ratios: map[string]string{}}
	for _, m := range rowLine.FindAllSubmatch(own, -1) {
		s.rows[string(m[1])] = string(m[2])
	}
	for _, m := range ratioLine.FindAllSubmatch(own, -1) {
		s.ratios[string(m[1])] = string(m[2])
	}
	return s, nil
}

// put sets the result of a stage.
func (s summary) put(done stage, result stageResult, versions, commit string, now time.Time) {
	s.rows[done.name] = fmt.Sprintf(" %s | %s | %s, `%s`, %s ", done.title, strings.ReplaceAll(result.line, "|", "\\|"),
		now.UTC().Format("2006-01-02 15:04 UTC"), commit, versions)
	for _, r := range result.ratios {
		s.ratios[r.name] = strconv.FormatFloat(r.value, 'f', 2, 64)
	}
}

// ratioLines returns the ratios as lines for scripts.
func (s summary) ratioLines() string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.ratios)) {
		fmt.Fprintf(&out, "ratio %s %s\n", name, s.ratios[name])
	}
	return out.String()
}

// write returns the document with the summary between its marks.
func (s summary) write(document []byte) ([]byte, error) {
	head, _, tail, err := cut(document)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	out.WriteString("| stage | | result | date, commit, versions |\n|---|---|---|---|\n")
	for _, one := range stages {
		if row, ok := s.rows[one.name]; ok {
			fmt.Fprintf(&out, "| `%s` |%s|\n", one.name, row)
		}
	}
	if len(s.ratios) > 0 {
		out.WriteString("\n| ratio | |\n|---|---:|\n")
		for _, name := range slices.Sorted(maps.Keys(s.ratios)) {
			fmt.Fprintf(&out, "| `%s` | %s |\n", name, s.ratios[name])
		}
	}
	return fmt.Appendf(nil, "%s%s\n\n%s\n%s%s", head, beginMark, out.String(), endMark, tail), nil
}

// cut splits the document at its marks.
func cut(document []byte) (head, own, tail []byte, err error) {
	head, rest, ok := bytes.Cut(document, []byte(beginMark))
	own, tail, ended := bytes.Cut(rest, []byte(endMark))
	if !ok || !ended {
		return nil, nil, nil, fmt.Errorf("missing the line %s or, after it, %s", beginMark, endMark)
	}
	return head, own, tail, nil
}
