package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Results is a file of results, one JSON object per line. A later invocation resumes from it.
type Results struct {
	path      string
	latest    map[uint64]Result // by seed
	truncated bool              // the last line is incomplete
}

// OpenResults reads the results in the file at path. A missing file has no results.
func OpenResults(path string) (*Results, error) {
	r := &Results{path: path, latest: map[uint64]Result{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	for line := range bytes.Lines(text) {
		var result Result
		if json.Unmarshal(line, &result) == nil { // an interrupted write may have left an incomplete line
			r.latest[result.Seed] = result
		}
	}
	r.truncated = len(text) > 0 && text[len(text)-1] != '\n'
	return r, nil
}

// Of returns the latest result of a schedule, and whether there is one. A result of its seed with other faults is none.
func (r *Results) Of(s Schedule) (Result, bool) {
	result, ok := r.latest[s.Seed]
	if !ok || result.Schedule != s.ID() {
		return Result{}, false
	}
	return result, true
}

// Add appends a result to the file.
func (r *Results) Add(result Result) error {
	r.latest[result.Seed] = result
	line, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o750); err != nil {
		return fmt.Errorf("create directory for results: %w", err)
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if r.truncated {
		line, r.truncated = append([]byte{'\n'}, line...), false
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
