package postgres

import (
	"testing"
	"time"
)

// A hidden transaction is as old as the time since it was first seen.
func TestActivityAge(t *testing.T) {
	t.Parallel()
	xid := func(s string) *string { return &s }
	age := func(d time.Duration) *int64 { us := d.Microseconds(); return &us }
	visible := transactionRow{Process: 1, Held: xid("700"), Age: age(40 * time.Second)}
	hidden := transactionRow{Process: 2, Held: xid("701")}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var a activity
	for i, step := range []struct {
		after time.Duration
		rows  []transactionRow
		want  time.Duration
	}{
		{0, nil, 0},
		{0, []transactionRow{hidden}, 0},
		{10 * time.Second, []transactionRow{hidden}, 10 * time.Second},
		{30 * time.Second, []transactionRow{hidden, visible}, 40 * time.Second},
		{90 * time.Second, []transactionRow{visible, hidden}, 90 * time.Second},
		{91 * time.Second, []transactionRow{{Process: 2, Held: xid("702")}}, 0}, // the next transaction of the same session
		{95 * time.Second, []transactionRow{{Process: 2, Held: xid("702")}}, 4 * time.Second},
		{95 * time.Second, []transactionRow{ // several sessions with the same snapshot
			visible, {Process: 2, Held: xid("702")}, {Process: 4, Held: xid("702")}, {Process: 5, Age: age(time.Second)},
		}, 40 * time.Second},
		{95 * time.Second, []transactionRow{{Process: 2, Held: xid("702")}, {Process: 6, Held: xid("702")}}, 4 * time.Second},
		{96 * time.Second, []transactionRow{{Process: 6, Held: xid("702")}}, time.Second},
		{96 * time.Second, []transactionRow{{Process: 3}}, 0}, // it holds nothing
		{97 * time.Second, []transactionRow{{Process: 2, Held: xid("702")}}, 0},
	} {
		if got := a.age(step.rows, start.Add(step.after)); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}
