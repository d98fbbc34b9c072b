package postgres

import (
	"cmp"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// backfillRow is a row of backfills. It is read and written as JSON, as imageRow is.
type backfillRow struct {
	ID          int64              `json:"id"`
	Pipeline    string             `json:"pipeline"`
	Number      int                `json:"number"`
	ManagedBy   backfill.ManagedBy `json:"managed_by"`
	ResourceUID string             `json:"resource_uid"`
	Generation  int64              `json:"generation"`

	TargetHash   string       `json:"target_hash"`
	TargetOutput string       `json:"target_output"`
	Selection    selectionRow `json:"selection"`

	OnMissing backfill.OnMissing `json:"on_missing"`

	State        backfill.State      `json:"state"`
	Reason       string              `json:"reason"`
	Suspended    backfill.Suspension `json:"suspended"`
	Open         bool                `json:"open"`
	ApprovedHash string              `json:"approved_hash"`

	MaxInFlight      int      `json:"max_in_flight"`
	Rate             float64  `json:"rate"`
	Windows          []string `json:"windows"`
	TimeZone         string   `json:"time_zone"`
	FailureThreshold float64  `json:"failure_threshold"`

	Pass    int             `json:"pass"`
	Cursor  catalog.ImageID `json:"cursor"`
	Found   int64           `json:"found"`
	Resting bool            `json:"resting"`
	Credit  float64         `json:"credit"`

	Requested    int64                `json:"requested"`
	Done         int64                `json:"done"`
	Skipped      int64                `json:"skipped"`
	Failed       int64                `json:"failed"`
	Failures     map[media.Code]int64 `json:"failures"`
	JudgedDone   int64                `json:"judged_done"`
	JudgedFailed int64                `json:"judged_failed"`

	Plan   planRow   `json:"plan"`
	Canary canaryRow `json:"canary"`

	CreatedAt     time.Time `json:"created_at,omitzero"`
	ApprovedAt    time.Time `json:"approved_at,omitzero"`
	StartedAt     time.Time `json:"started_at,omitzero"`
	PassStartedAt time.Time `json:"pass_started_at,omitzero"`
	SteppedAt     time.Time `json:"stepped_at,omitzero"`
	ProgressedAt  time.Time `json:"progressed_at,omitzero"`
	EndedAt       time.Time `json:"ended_at,omitzero"`
}

// selectionRow and planRow are stored as JSON, so fields may be added, but not renamed.
type selectionRow struct {
	Kind            backfill.Kind  `json:"kind"`
	Codes           []media.Code   `json:"codes,omitempty"`
	Status          catalog.Status `json:"status,omitempty"`
	Code            media.Code     `json:"code,omitempty"`
	UserID          catalog.UserID `json:"user_id,omitempty"`
	OutputHash      string         `json:"output_hash,omitempty"`
	RequestedBefore time.Time      `json:"requested_before,omitzero"`
}

type planRow struct {
	Sampled     int         `json:"sampled"`
	Images      estimateRow `json:"images"`
	NoOriginal  estimateRow `json:"no_original"`
	SourceBytes estimateRow `json:"source_bytes"`
	StoredBytes estimateRow `json:"stored_bytes"`
	Seconds     float64     `json:"seconds"`
	PlannedAt   time.Time   `json:"planned_at,omitzero"`
}

type estimateRow struct {
	Value float64 `json:"value"`
	Error float64 `json:"error"`
}

func toBackfillRow(b backfill.Backfill) backfillRow {
	r := backfillRow{
		ID: b.ID, Pipeline: b.Pipeline, Number: b.Number, ManagedBy: b.ManagedBy, ResourceUID: b.ResourceUID,
		Generation: b.Generation, TargetHash: b.TargetHash, TargetOutput: b.TargetOutput,
		Selection: selectionRow{
			Kind: b.Selection.Kind, Codes: b.Selection.Codes, Status: b.Selection.Status, Code: b.Selection.Code,
			UserID: b.Selection.UserID, OutputHash: b.Selection.OutputHash,
			RequestedBefore: toTime(b.Selection.RequestedBefore),
		},
		OnMissing: cmp.Or(b.OnMissing, backfill.FetchMissing),
		State:     b.State, Reason: b.Reason, Suspended: b.Suspended, Open: b.Open, ApprovedHash: b.ApprovedHash,
		MaxInFlight: b.MaxInFlight, Rate: b.Rate, Windows: []string{}, TimeZone: b.TimeZone,
		FailureThreshold: b.FailureThreshold,
		Pass:             b.Pass, Cursor: b.Cursor, Found: b.Found, Resting: b.Resting, Credit: b.Credit,
		Requested: b.Requested, Done: b.Done, Skipped: b.Skipped, Failed: b.Failed, Failures: b.Failures,
		JudgedDone: b.JudgedDone, JudgedFailed: b.JudgedFailed,
		Plan: planRow{
			Sampled: b.Plan.Sampled, Images: estimateRow(b.Plan.Images), NoOriginal: estimateRow(b.Plan.NoOriginal),
			SourceBytes: estimateRow(b.Plan.SourceBytes), StoredBytes: estimateRow(b.Plan.StoredBytes),
			Seconds: b.Plan.Seconds, PlannedAt: toTime(b.Plan.PlannedAt),
		},
		Canary:    toCanaryRow(b.Canary),
		CreatedAt: toTime(b.CreatedAt), ApprovedAt: toTime(b.ApprovedAt), StartedAt: toTime(b.StartedAt),
		PassStartedAt: toTime(b.PassStartedAt), SteppedAt: toTime(b.SteppedAt), ProgressedAt: toTime(b.ProgressedAt),
		EndedAt: toTime(b.EndedAt),
	}
	if r.Failures == nil {
		r.Failures = map[media.Code]int64{}
	}
	for _, w := range b.Windows {
		r.Windows = append(r.Windows, w.String())
	}
	return r
}

// fromRow returns the backfill. A window that cannot be parsed is an error, because without it the backfill could run at any
// time.
func (r backfillRow) fromRow() (backfill.Backfill, error) {
	b := backfill.Backfill{
		ID: r.ID, Pipeline: r.Pipeline, Number: r.Number, ManagedBy: r.ManagedBy, ResourceUID: r.ResourceUID,
		Generation: r.Generation, TargetHash: r.TargetHash, TargetOutput: r.TargetOutput,
		Selection: backfill.Selection{Kind: r.Selection.Kind, Codes: r.Selection.Codes, Selector: backfill.Selector{
			Status: r.Selection.Status, Code: r.Selection.Code, UserID: r.Selection.UserID,
			OutputHash: r.Selection.OutputHash, RequestedBefore: r.Selection.RequestedBefore.UTC(),
		}},
		OnMissing: r.OnMissing,
		State:     r.State, Reason: r.Reason, Suspended: r.Suspended, Open: r.Open, ApprovedHash: r.ApprovedHash,
		Pace: backfill.Pace{
			MaxInFlight: r.MaxInFlight, Rate: r.Rate, TimeZone: r.TimeZone, FailureThreshold: r.FailureThreshold,
		},
		Pass: r.Pass, Cursor: r.Cursor, Found: r.Found, Resting: r.Resting, Credit: r.Credit,
		Requested: r.Requested, Done: r.Done, Skipped: r.Skipped, Failed: r.Failed, Failures: r.Failures,
		JudgedDone: r.JudgedDone, JudgedFailed: r.JudgedFailed,
		Plan: backfill.Plan{
			Sampled: r.Plan.Sampled, Images: backfill.Estimate(r.Plan.Images),
			NoOriginal: backfill.Estimate(r.Plan.NoOriginal), SourceBytes: backfill.Estimate(r.Plan.SourceBytes),
			StoredBytes: backfill.Estimate(r.Plan.StoredBytes),
			Seconds:     r.Plan.Seconds, PlannedAt: r.Plan.PlannedAt.UTC(),
		},
		Canary:    r.Canary.fromRow(),
		CreatedAt: r.CreatedAt.UTC(), ApprovedAt: r.ApprovedAt.UTC(), StartedAt: r.StartedAt.UTC(),
		PassStartedAt: r.PassStartedAt.UTC(), SteppedAt: r.SteppedAt.UTC(), ProgressedAt: r.ProgressedAt.UTC(),
		EndedAt: r.EndedAt.UTC(),
	}
	for _, text := range r.Windows {
		w, err := backfill.ParseWindow(text)
		if err != nil {
			return b, err
		}
		b.Windows = append(b.Windows, w)
	}
	return b, nil
}

// backfillEventRow is an event in the form that insertBackfillEvents reads.
type backfillEventRow struct {
	BackfillID int64                     `json:"backfill_id"`
	ImageID    catalog.ImageID           `json:"image_id"`
	Kind       catalog.BackfillEventKind `json:"kind"`
	Code       media.Code                `json:"code"`
}

func toBackfillEventRows(events []catalog.BackfillEvent) asJSON[[]backfillEventRow] {
	rows := make([]backfillEventRow, len(events))
	for i, e := range events {
		rows[i] = backfillEventRow(e)
	}
	return asJSON[[]backfillEventRow]{rows}
}
