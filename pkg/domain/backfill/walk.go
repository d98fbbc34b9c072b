package backfill

import (
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// Add adds events to the counts.
func (b *Backfill) Add(kind catalog.BackfillEventKind, code media.Code, images int64) {
	switch kind {
	case catalog.BackfillRequested:
		b.Requested += images
	case catalog.BackfillDropped:
		b.Requested -= images
		b.Found += images // a pass that has gone by the image must not complete the backfill
	case catalog.BackfillDone:
		b.Done += images
	case catalog.BackfillFailed:
		b.Failed += images
		if b.Failures == nil {
			b.Failures = map[media.Code]int64{}
		}
		b.Failures[code] += images
	}
}

// Settle sets what follows from the counts, if so many jobs are outstanding at the same moment. before are the counts before
// the last events: only an image that has ended since is progress.
func (b *Backfill) Settle(before Backfill, outstanding int, now time.Time) {
	b.Skipped = max(b.Requested-b.Done-b.Failed-int64(outstanding), 0)
	if b.Done != before.Done || b.Failed != before.Failed || b.Skipped != before.Skipped {
		b.ProgressedAt = now
	}
}

// decide changes the state as the time, the failures and the pipelines in force require, and says whether the walk is open.
func (w *Walk) decide(inForce []string) {
	agreed := len(inForce) == 1
	target := agreed && inForce[0] == w.TargetHash
	if w.State == Approved && target && !w.OtherRunning && w.Suspended == NotSuspended {
		w.State, w.StartedAt, w.ProgressedAt = Running, w.Now, w.Now
		w.beginPass()
	}
	if w.State != Running {
		w.Open = false
		return
	}
	done, failed := w.Done-w.JudgedDone, w.Failed-w.JudgedFailed
	switch {
	case agreed && !target:
		w.end(Superseded, "the pipeline in force is "+inForce[0], w.Now)
	case w.Suspended == NotSuspended && done+failed >= minJudged && w.exceeds(done, failed):
		w.Suspended = ByFailures
	}
	w.setOpen(w.State == Running && target && w.Suspended == NotSuspended && w.allows(w.Now))
}

// setOpen opens or closes the walk. The time for which it was closed is no time without progress.
func (w *Walk) setOpen(open bool) {
	if open && !w.Open {
		w.ProgressedAt = w.Now
	}
	w.Open = open
}

func (w *Walk) beginPass() {
	w.Pass, w.Cursor, w.Found, w.Resting, w.PassStartedAt = w.Pass+1, 0, 0, false, w.Now
}

// turn ends a pass, or begins the next one. A pass that has found nothing completes the backfill, unless it began so early
// that a transaction of a request with the earlier target could be open at that time. While jobs of others keep images busy,
// passes follow each other with pauses.
func (w *Walk) turn(settle time.Duration) {
	if !w.Resting || w.Outstanding > 0 {
		return
	}
	switch {
	case w.Found == 0 && !w.PassStartedAt.Before(w.StartedAt.Add(settle)):
		if w.exceeds(w.Done, w.Failed) {
			w.end(Failed, "more images failed than the threshold allows", w.Now)
			return
		}
		w.end(Complete, "", w.Now)
	case !w.Now.Before(w.PassStartedAt.Add(settle)):
		w.beginPass()
	}
}

// earn adds to the credit what the rate allows since the last step, up to the images of a second, or one.
func (w *Walk) earn() {
	if !w.SteppedAt.IsZero() {
		w.Credit = min(w.Credit+w.Rate*max(w.Now.Sub(w.SteppedAt).Seconds(), 0), max(w.Rate, 1))
	}
	w.SteppedAt = w.Now
}

// allowance returns how many images may be requested now.
func (w *Walk) allowance() int {
	if !w.Open || w.Resting {
		return 0
	}
	return min(w.MaxInFlight-w.Outstanding, int(w.Credit))
}

// isGone reports whether an image needs no job: it has one, was tried, or no longer exists.
func isGone(err error) bool { return fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) }
