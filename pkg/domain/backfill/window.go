package backfill

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // container images have no time zones
)

// maxWindows is the maximum of windows of a backfill.
const maxWindows = 20

// Window is a time of the day, on some days of the week, at which a backfill may run.
type Window struct {
	Days     []time.Weekday // on which it begins; empty: every day
	From, To time.Duration  // since midnight by the clock on the wall; To up to From means the next day
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow parses a window such as "22:00-06:00", "mon-fri 22:00-06:00" or "sat,sun 00:00-24:00".
func ParseWindow(text string) (Window, error) {
	var w Window
	fields := strings.Fields(strings.ToLower(text))
	if len(fields) == 0 || len(fields) > 2 {
		return Window{}, fmt.Errorf("%q is not a window such as %q", text, "mon-fri 22:00-06:00")
	}
	if len(fields) == 2 {
		for _, part := range strings.Split(fields[0], ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
			if from < 0 || to < 0 {
				return Window{}, fmt.Errorf("%q: %q is not a day such as mon, or a range such as mon-fri", text, part)
			}
			for day := from; ; day = (day + 1) % 7 {
				w.Days = append(w.Days, time.Weekday(day))
				if day == to {
					break
				}
			}
		}
		slices.Sort(w.Days)
		w.Days = slices.Compact(w.Days)
	}
	from, to, ok := strings.Cut(fields[len(fields)-1], "-")
	var err error
	if w.From, err = parseClock(from); err == nil {
		w.To, err = parseClock(to)
	}
	if !ok || err != nil || w.From == 24*time.Hour || w.From == w.To {
		return Window{}, fmt.Errorf("%q: give the time as 22:00-06:00", text)
	}
	return w, nil
}

func parseClock(text string) (time.Duration, error) {
	if text == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, err
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// String returns the window in the form that ParseWindow parses.
func (w Window) String() string {
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	text := clock(w.From) + "-" + clock(w.To)
	if len(w.Days) == 0 {
		return text
	}
	days := make([]string, len(w.Days))
	for i, day := range w.Days {
		days[i] = dayNames[day]
	}
	return strings.Join(days, ",") + " " + text
}

// contains reports whether the window contains t, by the clock of its location.
func (w Window) contains(t time.Time) bool {
	clock := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	on := func(day time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, day) }
	if w.To > w.From {
		return on(t.Weekday()) && clock >= w.From && clock < w.To
	}
	return on(t.Weekday()) && clock >= w.From || on((t.Weekday()+6)%7) && clock < w.To
}

// allows reports whether the windows allow to run at a time. A time zone that is not known allows no time.
func (p Pace) allows(now time.Time) bool {
	zone, err := time.LoadLocation(p.TimeZone)
	if err != nil {
		return false
	}
	return len(p.Windows) == 0 || slices.ContainsFunc(p.Windows, func(w Window) bool { return w.contains(now.In(zone)) })
}
