package backfill

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The changes of a backfill by those who manage it. Each returns fault.Conflict if the state does not allow it.

// checkManager returns an error if by may not change the backfill.
func (b *Backfill) checkManager(by ManagedBy) error {
	if by == CLI && b.ManagedBy == Resource {
		return fault.New(fault.Conflict, "managed_by_resource",
			"managed_by: the backfill "+b.Name()+" belongs to a resource of the cluster: change that, or suspend with --force")
	}
	return nil
}

func (b *Backfill) wrongState(verb string) error {
	return fault.New(fault.Conflict, "wrong_state", "state: "+b.Name()+" is "+string(b.State)+" and cannot be "+verb)
}

// approve lets a proposed backfill start. hash must be the one of its target.
func (b *Backfill) approve(hash string, now time.Time) error {
	switch {
	case hash != b.TargetHash:
		return fault.InvalidFields([]fault.Field{{
			Path: "approved_hash", Code: "mismatch", Detail: "the target of " + b.Name() + " is " + b.TargetHash,
		}})
	case b.State == Approved || b.State == Running:
		return nil // approved before
	case b.State != Proposed:
		return b.wrongState("approved")
	}
	b.State, b.ApprovedHash, b.ApprovedAt = Approved, hash, now
	b.Canary.stop(now)
	return nil
}

func (b *Backfill) suspend() error {
	if b.State.Ended() {
		return b.wrongState("suspended")
	}
	b.Suspended, b.Open = ByOperator, false
	return nil
}

// resume undoes a suspension. Failures up to now no longer count against the threshold.
func (b *Backfill) resume() error {
	if b.State.Ended() {
		return b.wrongState("resumed")
	}
	b.Suspended, b.JudgedDone, b.JudgedFailed = NotSuspended, b.Done, b.Failed
	return nil
}

// setPace changes the pace. The next step of the walk applies it.
func (b *Backfill) setPace(p Pace) error {
	if b.State.Ended() {
		return b.wrongState("changed")
	}
	b.Pace = p
	return nil
}

func (b *Backfill) cancel(now time.Time) error {
	switch {
	case b.State == Cancelled:
		return nil
	case b.State.Ended():
		return b.wrongState("cancelled")
	}
	b.end(Cancelled, "", now)
	return nil
}
