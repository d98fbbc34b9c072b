package main

import (
	"testing"
	"time"
)

// One transaction changes an image and its job; the history has one change of both.
func TestMergeChanges(t *testing.T) {
	t.Parallel()
	at := time.Now()
	raw := func(text string) []byte { return []byte(text) }
	image := `{"id": 1, "product_id": 2, "status": "pending", "fencing_token": 0}`
	ready := `{"id": 1, "product_id": 2, "status": "ready", "fencing_token": 3, "renditions": [{"key": "a/b"}]}`
	queued := `{"image_id": 1, "product_id": 2, "job_state": "queued", "job_id": "x", "fencing_token": 0}`
	begun := `{"image_id": 1, "product_id": 2, "job_state": "processing", "job_id": "x", "fencing_token": 3}`
	changes, jobs, err := mergeChanges([]recordedChange{
		{at, "1", "products", "INSERT", nil, raw(`{"id": 2, "version": 1}`)},
		{at, "1", "images", "INSERT", nil, raw(image)},
		{at, "1", "image_jobs", "INSERT", nil, raw(queued)},
		{at, "2", "image_jobs", "UPDATE", raw(queued), raw(begun)},
		{at, "3", "products", "UPDATE", raw(`{"id": 2, "version": 1}`), raw(`{"id": 2, "version": 2}`)},
		{at, "3", "images", "UPDATE", raw(image), raw(ready)},
		{at, "3", "image_jobs", "DELETE", raw(begun), nil},
		{at, "4", "images", "DELETE", raw(ready), nil},
	})
	if err != nil || len(changes) != 6 || len(jobs) != 3 {
		t.Fatalf("got %d changes, %d of jobs and %v, want 6 and 3", len(changes), len(jobs), err)
	}
	var got []string
	for _, c := range changes {
		if c.Kind == "images" {
			got = append(got, c.Op+" "+effect(c))
		}
	}
	want := []string{
		"INSERT pending queued at fencing token 0", "UPDATE pending processing at fencing token 3",
		"UPDATE ready idle at fencing token 3", "DELETE removed",
	}
	for i, line := range want {
		if i >= len(got) || got[i] != line {
			t.Errorf("got %q, want %q", got, want)
			break
		}
	}
	if c := changes[4]; !c.At.Equal(at) {
		t.Errorf("got a change at %s, want %s", c.At, at)
	}
	if c := changes[4]; c.OldImage.JobState != "processing" || c.OldImage.jobID() != "x" || c.NewImage.jobID() != "" {
		t.Errorf("got %+v and %+v, want the end of job x", c.OldImage, c.NewImage)
	}
	if _, _, err := mergeChanges([]recordedChange{{at, "1", "images", "INSERT", nil, raw(`{`)}}); err == nil {
		t.Error("a row that is not JSON was accepted")
	}
}
