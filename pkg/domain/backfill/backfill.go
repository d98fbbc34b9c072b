package backfill

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// State is the state of a backfill.
type State string

// The states. A backfill in one of the last four has ended.
const (
	Proposed   State = "proposed"
	Approved   State = "approved" // it starts when no other runs and its target is in force everywhere
	Running    State = "running"
	Complete   State = "complete"
	Failed     State = "failed"     // it went through all images, and more of them failed than its threshold allows
	Superseded State = "superseded" // the pipeline has another target
	Cancelled  State = "cancelled"
)

// Ended reports whether a backfill in that state never runs again.
func (s State) Ended() bool {
	return s == Complete || s == Failed || s == Superseded || s == Cancelled
}

// ManagedBy is who changes a backfill.
type ManagedBy string

// The values of ManagedBy.
const (
	CLI      ManagedBy = "cli"
	Resource ManagedBy = "resource" // the controller of a resource in a cluster
)

// Suspension is why a backfill rests.
type Suspension string

// The values of Suspension.
const (
	NotSuspended Suspension = ""
	ByOperator   Suspension = "operator"
	ByFailures   Suspension = "failures" // more images failed than the threshold allows
)

// OnMissing is what becomes of a selected image whose original is not kept, or cannot be read.
type OnMissing string

// The values of OnMissing.
const (
	FetchMissing OnMissing = "fetch" // its source is downloaded from its URL
	SkipMissing  OnMissing = "skip"  // it stays as it is, and counts as skipped
)

// Backfill is one backfill. Its target and its selection never change.
type Backfill struct {
	ID          int64
	Pipeline    string // name of the ImagePipeline
	Number      int    // within the pipeline, from 1
	ManagedBy   ManagedBy
	ResourceUID string // with Generation unique; "" for the CLI
	Generation  int64

	TargetHash   string // of the pipeline: jobs name it
	TargetOutput string // pipeline.Spec.OutputHash of the target
	Selection    Selection
	OnMissing    OnMissing // "": FetchMissing

	State        State
	Reason       string // why it ended, in one sentence; may be empty
	Suspended    Suspension
	Open         bool   // jobs may be released and begun; set by the walk
	ApprovedHash string // equal to TargetHash once it is approved

	Pace

	// The position of the walk.
	Pass    int             // from 1; 0 before the start
	Cursor  catalog.ImageID // the last image that this pass has looked at
	Found   int64           // images that this pass has requested, or found busy
	Resting bool            // the pass has ended
	Credit  float64         // images that the rate allows now

	Requested, Done, Skipped, Failed int64
	Failures                         map[media.Code]int64
	JudgedDone, JudgedFailed         int64 // the counts at the last resume: the threshold applies to what came after it

	Plan   Plan
	Canary Canary

	CreatedAt, ApprovedAt, StartedAt, PassStartedAt, SteppedAt, ProgressedAt, EndedAt time.Time
}

// Pace says how fast and when a backfill runs.
type Pace struct {
	MaxInFlight      int      // jobs that have not ended
	Rate             float64  // images a second
	Windows          []Window // none: at all times
	TimeZone         string   // IANA name, of the windows
	FailureThreshold float64  // percentage of images that may fail; above it the backfill is suspended
}

// The limits of a Pace, and its defaults.
const (
	MaxMaxInFlight          = 10_000
	MaxRate                 = 1000
	DefaultMaxInFlight      = 100
	DefaultRate             = 20
	DefaultFailureThreshold = 5
)

// DefaultPace returns the pace of a backfill without settings.
func DefaultPace() Pace {
	return Pace{
		MaxInFlight: DefaultMaxInFlight, Rate: DefaultRate, TimeZone: "UTC", FailureThreshold: DefaultFailureThreshold,
	}
}

// Check returns every wrong field.
func (p Pace) Check() []fault.Field {
	var check fault.Checker
	check.Range(p.MaxInFlight >= 1 && p.MaxInFlight <= MaxMaxInFlight, "max_in_flight", "a number from 1 to %d", MaxMaxInFlight)
	check.Range(p.Rate >= 0.01 && p.Rate <= MaxRate, "rate", "a number from 0.01 to %d", MaxRate) // NaN is wrong
	check.Range(p.FailureThreshold >= 0 && p.FailureThreshold <= 100, "failure_threshold", "a percentage from 0 to 100")
	if _, err := time.LoadLocation(p.TimeZone); err != nil || p.TimeZone == "" || p.TimeZone == "Local" {
		check.Add("time_zone", "unknown_value", "%q is not a name of the IANA time zone database", p.TimeZone)
	}
	check.Range(len(p.Windows) <= maxWindows, "windows", "at most %d windows", maxWindows)
	return check.Fields()
}

// Check returns the wrong field, if the value is none of the constants.
func (m OnMissing) Check() []fault.Field {
	var check fault.Checker
	check.Check(m == FetchMissing || m == SkipMissing, "on_missing", "unknown_value", "fetch or skip, not %q", m)
	return check.Fields()
}

// Name returns the name of the backfill.
func (b Backfill) Name() string { return fmt.Sprintf("%s-%d", b.Pipeline, b.Number) }

// ParseName returns the pipeline and the number of a name. ok is false if it cannot be the name of a backfill.
func ParseName(name string) (pipeline string, number int, ok bool) {
	at := strings.LastIndexByte(name, '-')
	if at < 1 {
		return "", 0, false
	}
	if _, err := fmt.Sscanf(name[at+1:], "%d", &number); err != nil || number < 1 {
		return "", 0, false
	}
	b := Backfill{Pipeline: name[:at], Number: number}
	return b.Pipeline, number, b.Name() == name
}

// Total returns how many images the backfill has: an estimate until it has ended.
func (b Backfill) Total() int64 {
	if b.State.Ended() {
		return b.Done + b.Skipped + b.Failed
	}
	return max(int64(math.Round(b.Plan.Images.Value)), b.Requested)
}

// ETA returns how long the backfill will take from now at the pace so far. ok is false if that is not known.
func (b Backfill) ETA(now time.Time) (left time.Duration, ok bool) {
	ended, elapsed := b.Done+b.Skipped+b.Failed, now.Sub(b.StartedAt)
	if b.State != Running || ended == 0 || elapsed <= 0 {
		return 0, false
	}
	return time.Duration(float64(elapsed) / float64(ended) * float64(max(b.Total()-ended, 0))), true
}

// maxCodes is how many codes of failures are shown.
const maxCodes = 5

// TopFailures returns the codes of the most frequent failures, at most five, the most frequent first.
func TopFailures[N int | int64](failures map[media.Code]N) []media.Code {
	codes := slices.SortedFunc(maps.Keys(failures), func(x, y media.Code) int {
		return cmp.Or(cmp.Compare(failures[y], failures[x]), cmp.Compare(x, y))
	})
	return codes[:min(maxCodes, len(codes))]
}

// Selects reports whether the image belongs to the backfill, by outputs: the output hash of each pipeline by its hash.
func (b Backfill) Selects(user catalog.UserID, img catalog.Image, outputs map[string]string) bool {
	return b.Selection.selects(user, img, b.TargetOutput, outputs)
}

// minJudged is the number of ended images below which the threshold is not applied.
const minJudged = 20

// exceeds reports whether so many failed images are more than the threshold allows.
func (p Pace) exceeds(done, failed int64) bool {
	return float64(failed)*100 > p.FailureThreshold*float64(done+failed)
}

func (b *Backfill) end(state State, reason string, now time.Time) {
	b.State, b.Reason, b.EndedAt, b.Open, b.Suspended = state, reason, now, false, NotSuspended
	b.Canary.stop(now)
}
