package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Results is a file of results, one a line, that a later run goes on with.
type Results struct {
	path string
	done map[uint64]Result // the last of each seed
	cut  bool              // the last line has no end
}

// OpenResults reads the results there are. No file means none.
func OpenResults(path string) (*Results, error) {
	r := &Results{path: path, done: map[uint64]Result{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	for line := range bytes.Lines(text) {
		var one Result
		if json.Unmarshal(line, &one) == nil { // a line that a kill has cut short is none
			r.done[one.Seed] = one
		}
	}
	r.cut = len(text) > 0 && text[len(text)-1] != '\n'
	return r, nil
}

// Of returns the result of a seed, if it has one.
func (r *Results) Of(seed uint64) (Result, bool) {
	one, ok := r.done[seed]
	return one, ok
}

// Add writes a result down.
func (r *Results) Add(one Result) error {
	r.done[one.Seed] = one
	line, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o750); err != nil {
		return fmt.Errorf("make directory for results: %w", err)
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if r.cut {
		line, r.cut = append([]byte{'\n'}, line...), false
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
