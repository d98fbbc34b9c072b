package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/process"
)

// A run changes the pipeline at half of its length, and has a backfill to the new one tried and approved, by the commands of
// an operator, through the faults.

const (
	changedThumb    = 140             // width of the changed thumbnail
	commandTimeout  = 8 * time.Second // of one command
	commandPause    = time.Second     // before a command is repeated
	canaryPause     = 4 * time.Second // between the start of a canary and the approval
	approvalTimeout = 2 * time.Minute // after the faults
)

// pipelineFiles are the files with the pipeline in force and with the one before.
func (s *System) pipelineFiles() (inForce, before string) {
	return filepath.Join(s.dir, "pipeline.yaml"), filepath.Join(s.dir, "pipeline-before.yaml")
}

// changePipeline writes the changed pipeline. The programs follow the file.
func (s *System) changePipeline() error {
	inForce, before := s.pipelineFiles()
	document, err := os.ReadFile(inForce)
	if err != nil {
		return fmt.Errorf("read pipeline: %w", err)
	}
	if err := os.WriteFile(before, document, 0o600); err != nil { //nolint:gosec // in the directory of the run
		return fmt.Errorf("keep pipeline: %w", err)
	}
	p, err := pipeline.Parse(document)
	if err != nil {
		return fmt.Errorf("parse pipeline: %w", err)
	}
	p.Spec.Renditions[0].Width = changedThumb
	if err := os.WriteFile(inForce, p.Document(), 0o600); err != nil { //nolint:gosec // see above
		return fmt.Errorf("change pipeline: %w", err)
	}
	return nil
}

// backfill changes the pipeline after the pause, and repeats the commands until a backfill is approved or ctx ends.
func (s *System) backfill(ctx context.Context, pause time.Duration) error {
	if !sleep(ctx, pause) {
		return ctx.Err()
	}
	if err := s.changePipeline(); err != nil {
		return err
	}
	for {
		err := s.approveBackfill(ctx)
		if err == nil {
			return nil
		}
		if !sleep(ctx, commandPause) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// approveBackfill plans a backfill to the changed pipeline, tries it on some images, and approves it. The approval stops a
// canary that has not ended.
func (s *System) approveBackfill(ctx context.Context) error {
	inForce, before := s.pipelineFiles()
	out, err := s.command(ctx, "backfill", "plan", "--file", inForce, "--from", before, "--failure-threshold", "100",
		"-o", "json")
	if err != nil {
		return err
	}
	var planned struct{ Name string }
	if err := json.Unmarshal(out, &planned); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	// It is refused if the plan has no images: an approval whose answer was lost has had them made. Any other error is one of
	// the approval, too.
	if _, err := s.command(ctx, "backfill", "canary", planned.Name, "--samples", "20"); err == nil && !sleep(ctx, canaryPause) {
		return ctx.Err()
	}
	_, err = s.command(ctx, "backfill", "approve", planned.Name)
	return err
}

// command runs vitrine and returns its output.
func (s *System) command(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "vitrine"), args...)
	cmd.Env, cmd.SysProcAttr = s.env, process.Attr(nil, syscall.SIGKILL)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("vitrine %v: %w: %s", args, err, exit.Stderr)
		}
		return nil, fmt.Errorf("vitrine %v: %w", args, err)
	}
	return out, nil
}

// BackfillRow is a row of backfills.
type BackfillRow struct {
	ID           int64  `json:"id"`
	State        string `json:"state"`
	TargetHash   string `json:"target_hash"`
	TargetOutput string `json:"target_output"`
	Requested    int64  `json:"requested"`
	Done         int64  `json:"done"`
	Skipped      int64  `json:"skipped"`
	Failed       int64  `json:"failed"`
}

// ruleBackfills checks that the last backfill is complete, that none has made an image twice, and that every ready image has
// the renditions of its target, unless the backfill has tried the image and failed.
func ruleBackfills(snap *Snapshot, violation func(string, ...any)) {
	if len(snap.Backfills) == 0 {
		violation("there is no backfill")
		return
	}
	last := snap.Backfills[len(snap.Backfills)-1]
	if last.State != "complete" {
		violation("backfill %d is %s", last.ID, last.State)
	}
	made := snap.madeByBackfills()
	for _, b := range snap.Backfills {
		done := int64(0)
		for image, n := range made[b.ID] {
			if done += int64(n); n > 1 {
				violation("backfill %d has made image %d %d times", b.ID, image, n)
			}
		}
		if b.Done != done || b.Requested != b.Done+b.Skipped+b.Failed {
			violation("backfill %d has made %d images, and counts %d requested, %d done, %d skipped and %d failed", b.ID, done,
				b.Requested, b.Done, b.Skipped, b.Failed)
		}
	}
	alive := snap.alive()
	for _, img := range snap.Images {
		if _, ok := alive[img.ProductID]; ok && img.Status == "ready" && img.OutputHash != last.TargetOutput &&
			img.BackfillID != last.ID {
			violation("image %d was forgotten: it is as output %.12s made it, and backfill %d has not tried it", img.ID,
				img.OutputHash, last.ID)
		}
	}
}

// madeByBackfills returns how often a job of each backfill has published renditions of each image.
func (snap *Snapshot) madeByBackfills() map[int64]map[int64]int {
	made := map[int64]map[int64]int{}
	for _, c := range snap.Changes {
		before, after := c.OldImage, c.NewImage
		if before == nil || after == nil || before.JobState != "processing" || after.JobState != "idle" ||
			before.BackfillID == 0 || after.BackfillID != before.BackfillID || before.objectPrefix() == after.objectPrefix() {
			continue
		}
		if made[before.BackfillID] == nil {
			made[before.BackfillID] = map[int64]int{}
		}
		made[before.BackfillID][after.ID]++
	}
	return made
}
