package backfill_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		pipeline string
		number   int
		ok       bool
	}{
		"default-1":   {"default", 1, true},
		"a-b-12":      {"a-b", 12, true},
		"default":     {},
		"-1":          {},
		"default-0":   {},
		"default-01":  {},
		"default-1x":  {},
		"default-1 ":  {},
		"default- 1":  {},
		"":            {},
		"default-99a": {},
	} {
		pipeline, number, ok := backfill.ParseName(name)
		if ok != want.ok || ok && (pipeline != want.pipeline || number != want.number) {
			t.Errorf("%q: got %q, %d, %v", name, pipeline, number, ok)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	t.Run("written_as_parsed", func(t *testing.T) {
		t.Parallel()
		for text, want := range map[string]string{
			"22:00-06:00": "22:00-06:00", "MON-fri 22:30-24:00": "mon,tue,wed,thu,fri 22:30-24:00",
			"sat,sun 00:00-24:00": "sun,sat 00:00-24:00", "fri-mon 1:00-02:00": "sun,mon,fri,sat 01:00-02:00",
		} {
			w, err := backfill.ParseWindow(text)
			if err != nil || w.String() != want {
				t.Errorf("%q: got %q, %v, want %q", text, w, err, want)
			}
			if again, err := backfill.ParseWindow(w.String()); err != nil || again.String() != want {
				t.Errorf("%q parsed again: got %q, %v", want, again, err)
			}
		}
	})
	t.Run("mistakes_are_refused", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{
			"", "22:00", "22:00-22:00", "24:00-06:00", "25:00-06:00", "day 22:00-06:00", "mon- 22:00-06:00", "mon 22:00 06:00",
			"22:60-06:00",
		} {
			if w, err := backfill.ParseWindow(text); err == nil {
				t.Errorf("%q: got %q", text, w)
			}
		}
	})
	t.Run("contains_times_by_the_wall_clock", testWindowContains)
}

func testWindowContains(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		window, at string // at is the time in Berlin; 2026-11-30 is a Monday
		want       bool
	}{
		{"22:00-06:00", "2026-11-30 21:59", false},
		{"22:00-06:00", "2026-11-30 22:00", true},
		{"22:00-06:00", "2026-12-01 05:59", true},
		{"22:00-06:00", "2026-12-01 06:00", false},
		{"mon 22:00-06:00", "2026-12-01 05:59", true}, // it began on Monday
		{"mon 22:00-06:00", "2026-11-30 05:59", false},
		{"mon 08:00-09:00", "2026-11-30 08:30", true},
		{"tue 08:00-09:00", "2026-11-30 08:30", false},
		{"sun 00:00-24:00", "2026-11-29 23:59", true},
		{"02:00-03:00", "2026-03-29 03:30", false}, // the night without that hour
		{"01:00-04:00", "2026-03-29 03:30", true},
	} {
		w, err := backfill.ParseWindow(row.window)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.ParseInLocation("2006-01-02 15:04", row.at, berlin)
		if err != nil {
			t.Fatal(err)
		}
		pace := backfill.DefaultPace()
		pace.Windows, pace.TimeZone = []backfill.Window{w}, "Europe/Berlin"
		if got := pace.Allows(at.UTC()); got != row.want {
			t.Errorf("%s at %s: got %v", row.window, row.at, got)
		}
	}
	pace := backfill.DefaultPace()
	if !pace.Allows(time.Unix(0, 0)) {
		t.Error("without windows it does not run")
	}
	if pace.TimeZone = "Mars/Olympus"; pace.Allows(time.Unix(0, 0)) {
		t.Error("with an unknown time zone it runs")
	}
}

func TestPaceCheck(t *testing.T) {
	t.Parallel()
	if wrong := backfill.DefaultPace().Check(); len(wrong) > 0 {
		t.Errorf("the default pace: %v", wrong)
	}
	wrong := backfill.Pace{TimeZone: "Local", FailureThreshold: 101, Windows: make([]backfill.Window, 21)}.Check()
	var paths []string
	for _, f := range wrong {
		paths = append(paths, f.Path)
	}
	want := []string{"max_in_flight", "rate", "failure_threshold", "time_zone", "windows"}
	if !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
}

func TestOnMissingCheck(t *testing.T) {
	t.Parallel()
	for value, wrong := range map[backfill.OnMissing]int{backfill.FetchMissing: 0, backfill.SkipMissing: 0, "": 1, "panic": 1} {
		if got := value.Check(); len(got) != wrong || wrong > 0 && got[0].Path != "on_missing" {
			t.Errorf("%q: got %v", value, got)
		}
	}
}

func TestSelectorCheck(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]backfill.Selector{
		"selector": {}, "status": {Status: catalog.Pending}, "code": {Code: "cosmic_rays"}, "user_id": {UserID: -1},
	} {
		if wrong := s.Check(); len(wrong) != 1 || wrong[0].Path != want {
			t.Errorf("%+v: got %v, want %s", s, wrong, want)
		}
	}
	ok := backfill.Selector{Status: catalog.Failed, Code: media.Timeout, UserID: 1}
	if err := fault.InvalidFields(ok.Check()); err != nil {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	base := pipeline.Default().Spec
	for name, row := range map[string]struct {
		change func(*pipeline.Spec)
		want   string
	}{
		"nothing": {func(*pipeline.Spec) {}, ""},
		"fetch_and_retry": {func(s *pipeline.Spec) {
			s.Fetch.PerHost, s.Retry.MaxAttempts = 9, 9
		}, ""},
		"quality": {func(s *pipeline.Spec) {
			s.Renditions = slices.Clone(s.Renditions)
			s.Renditions[0].Width++
		}, "renditions"},
		"fewer_formats_accepted": {func(s *pipeline.Spec) { s.Accept = s.Accept[1:] }, ""},
		"lower_limits": {func(s *pipeline.Spec) {
			s.Limits.MaxBytes--
			s.Limits.MaxPixels--
			s.Limits.Deadline--
		}, ""},
		"higher_limits": {func(s *pipeline.Spec) {
			s.Limits.MaxBytes++
			s.Limits.MaxPixels++
			s.Limits.Deadline++
		}, "failures codec_timeout too_large too_many_pixels"},
		"another_format_and_rendition": {func(s *pipeline.Spec) {
			s.Accept = append(slices.Clone(s.Accept), "jxl")
			s.Renditions = s.Renditions[1:]
		}, "renditions unsupported_format"},
	} {
		spec := base
		row.change(&spec)
		s, ok := backfill.Compare(base, spec).Selection()
		got := string(s.Kind)
		for _, code := range s.Codes {
			got += " " + string(code)
		}
		if got != row.want || ok != (row.want != "") {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, row.want)
		}
	}
}

func TestTopFailures(t *testing.T) {
	t.Parallel()
	failures := map[media.Code]int64{
		media.Timeout: 3, media.Corrupt: 7, media.TooLarge: 3, media.DNSFailed: 1, media.HTTPStatus: 9, media.TLSFailed: 2,
	}
	var got []string
	for _, code := range backfill.TopFailures(failures) {
		got = append(got, string(code))
	}
	if want := "http_status corrupt timeout too_large tls_failed"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	t.Run("sample_of_everything_is_exact", func(t *testing.T) {
		t.Parallel()
		p := backfill.NewPlan(backfill.Sample{
			Matched: 30, NoOriginal: 25, SourceBytes: backfill.Moments{Sum: 600, Squares: 12000},
		}, 100, 100, 10, time.Unix(0, 0))
		if p.Images != (backfill.Estimate{Value: 30}) || p.NoOriginal != (backfill.Estimate{Value: 25}) ||
			p.SourceBytes != (backfill.Estimate{Value: 600}) || p.Seconds != 3 {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("error_is_that_of_a_binomial_sample", func(t *testing.T) {
		t.Parallel()
		p := backfill.NewPlan(backfill.Sample{Matched: 2000}, 10_000, 1_000_000, 10, time.Unix(0, 0))
		if p.Images.Value < 199_999 || p.Images.Value > 200_001 || p.Images.Error < 3970 || p.Images.Error > 4000 {
			t.Errorf("got %+v, want 200000 with a standard error of 1e6 sqrt(0.2 0.8 / 1e4) = 4000, less a hundredth", p.Images)
		}
	})
	t.Run("empty_installation_has_no_images", func(t *testing.T) {
		t.Parallel()
		if p := backfill.NewPlan(backfill.Sample{}, 0, 0, 10, time.Unix(0, 0)); p.Images != (backfill.Estimate{}) {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("ids_are_all_or_random_without_repetition", func(t *testing.T) {
		t.Parallel()
		if ids := backfill.SampleIDs(3, nil); !slices.Equal(ids, []int64{1, 2, 3}) {
			t.Errorf("got %v", ids)
		}
		next := int64(0)
		ids := backfill.SampleIDs(1_000_000, func(n int64) int64 { next += 7; return next / 2 % n }) // each second one repeats
		slices.Sort(ids)
		if len(ids) != 10_000 || len(slices.Compact(ids)) != 10_000 || ids[0] < 1 {
			t.Errorf("got %d ids from %d", len(ids), ids[0])
		}
	})
}
