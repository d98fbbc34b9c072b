package main

import (
	"testing"
	"time"
)

func TestMergeChanges(t *testing.T) {
	t.Parallel()
	t.Run("image_and_job", testMergeChangesImageAndJob)
	t.Run("interleaved_transactions", testMergeChangesInterleavedTransactions)
}

// Transaction 2 changes the image, and then waits for transaction 3, which has locked the job. So 3 comes first.
func testMergeChangesInterleavedTransactions(t *testing.T) {
	t.Parallel()
	raw := func(text string) []byte { return []byte(text) }
	image := raw(`{"id": 1, "status": "pending", "fencing_token": 0}`)
	removed := raw(`{"id": 1, "status": "pending", "fencing_token": 1}`)
	queued := raw(`{"image_id": 1, "job_state": "queued", "job_id": "x", "fencing_token": 0}`)
	changes, _, err := mergeChanges([]recordedChange{
		{time.Now(), "1", "images", "INSERT", nil, image},
		{time.Now(), "1", "image_jobs", "INSERT", nil, queued},
		{time.Now(), "2", "images", "UPDATE", image, removed},
		{time.Now(), "3", "image_jobs", "UPDATE", queued, queued},
		{time.Now(), "2", "image_jobs", "DELETE", queued, nil},
	})
	if err != nil || len(changes) != 3 {
		t.Fatalf("got %d changes and %v, want 3", len(changes), err)
	}
	if got, want := effect(changes[2]), "pending idle at fencing token 1"; got != want {
		t.Errorf("the last change is %q, want %q", got, want)
	}
}

// One transaction changes an image and its job; the history has one change of both.
func testMergeChangesImageAndJob(t *testing.T) {
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
