package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// recordedChange is one change of a row, as the trigger recorded it.
type recordedChange struct {
	At           time.Time
	Tx, Kind, Op string
	Old, New     []byte // JSON; empty if there is none
}

// imageState is an image while the history is read: its row and the row of its job, as JSON.
type imageState struct{ image, job []byte }

// row returns the image with its job, or nil if it does not exist.
func (s imageState) row() (*ImageRow, error) {
	if len(s.image) == 0 {
		return nil, nil //nolint:nilnil // no row
	}
	row := &ImageRow{JobState: "idle"}
	for _, raw := range [][]byte{s.image, s.job} {
		if len(raw) == 0 {
			continue
		}
		if err := json.Unmarshal(raw, row); err != nil {
			return nil, fmt.Errorf("decode an image: %w", err)
		}
	}
	return row, nil
}

// mergeChanges returns the history of products and images, and that of jobs. What one transaction changes in an image and
// its job is one change.
func mergeChanges(recorded []recordedChange) (changes []Change, jobs []JobChange, err error) {
	groups := map[string][]recordedChange{} // by transaction and image
	for _, r := range recorded {
		key, err := r.group()
		if err != nil {
			return nil, nil, err
		}
		groups[key] = append(groups[key], r)
	}
	images, seen := map[string]imageState{}, map[string]int{}
	for _, r := range recorded {
		switch r.Kind {
		case "products":
			c := Change{At: r.At, Kind: r.Kind, Op: r.Op}
			if c.OldProduct, err = decodeRow[ProductRow](r.Old); err == nil {
				c.NewProduct, err = decodeRow[ProductRow](r.New)
			}
			changes = append(changes, c)
		case "image_jobs":
			var c JobChange
			if c.Old, err = decodeRow[JobRow](r.Old); err == nil {
				c.New, err = decodeRow[JobRow](r.New)
			}
			jobs = append(jobs, c)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("decode a change of %s: %w", r.Kind, err)
		}
		if r.Kind == "products" {
			continue
		}
		key, err := r.group()
		if err != nil {
			return nil, nil, err
		}
		if seen[key]++; seen[key] < len(groups[key]) {
			continue
		}
		// The last of a group applies all of it. By then, each transaction that locked one of its rows before has committed.
		c, err := applyGroup(images, groups[key])
		if err != nil {
			return nil, nil, err
		}
		changes = append(changes, c...)
	}
	return changes, jobs, nil
}

// group names the transaction and the image of a change.
func (r recordedChange) group() (string, error) {
	id, err := r.image()
	return r.Tx + " " + id, err
}

// image returns the id of the image that a change belongs to, or "" for a product.
func (r recordedChange) image() (string, error) {
	if r.Kind == "products" {
		return "", nil
	}
	var ids struct {
		ID      json.Number `json:"id"`
		ImageID json.Number `json:"image_id"`
	}
	raw := r.New
	if len(raw) == 0 {
		raw = r.Old
	}
	if err := json.Unmarshal(raw, &ids); err != nil {
		return "", fmt.Errorf("decode a change of %s: %w", r.Kind, err)
	}
	if r.Kind == "images" {
		return ids.ID.String(), nil
	}
	return ids.ImageID.String(), nil
}

// applyGroup applies the changes of one transaction to one image, and returns the change as a whole, if there is one.
func applyGroup(images map[string]imageState, group []recordedChange) ([]Change, error) {
	id, err := group[0].image()
	if err != nil {
		return nil, err
	}
	state := images[id]
	before, err := state.row()
	if err != nil {
		return nil, err
	}
	for _, r := range group {
		if r.Kind == "images" {
			state.image = slices.Clone(r.New)
		} else {
			state.job = slices.Clone(r.New)
		}
	}
	images[id] = state
	after, err := state.row()
	if err != nil {
		return nil, err
	}
	op := "UPDATE"
	switch {
	case before == nil && after == nil:
		return nil, nil
	case before == nil:
		op = "INSERT"
	case after == nil:
		op = "DELETE"
	}
	return []Change{{At: group[len(group)-1].At, Kind: "images", Op: op, OldImage: before, NewImage: after}}, nil
}

// decodeRow decodes a row, or returns nil if raw is empty.
func decodeRow[T any](raw []byte) (*T, error) {
	if len(raw) == 0 {
		return nil, nil //nolint:nilnil // no row
	}
	row := new(T)
	return row, json.Unmarshal(raw, row)
}
