package codecproto_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestComparison(t *testing.T) {
	t.Parallel()
	t.Run("scores_and_renditions_alternate", testComparisonAlternates)
	t.Run("number_of_files_is_bounded", testComparisonIsBounded)
	t.Run("wrong_scores_are_an_error", testComparisonWrongScores)
}

// comparisons returns files with those bodies.
func comparisons(bodies ...string) []media.Comparison {
	var files []media.Comparison
	for _, body := range bodies {
		files = append(files, media.Comparison{
			Rendition: pipeline.Rendition{Name: "thumb", Width: 320}, Format: pipeline.WebP, Body: []byte(body),
		})
	}
	return files
}

func testComparisonAlternates(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	var in, out bytes.Buffer
	for i, source := range []string{"ok", "corrupt"} {
		if err := codecproto.WriteComparison(&in, i, []byte(source), spec, comparisons("abc", "", "ab")); err != nil {
			t.Fatal(err)
		}
	}
	if err := codecproto.WriteRequest(&in, 2, []byte("ok"), spec); err != nil {
		t.Fatal(err)
	}
	if err := codecproto.Serve(t.Context(), &in, &out, testRender, testCompare); err != nil {
		t.Fatal(err)
	}
	if err := codecproto.ReadHello(&out); err != nil {
		t.Fatal(err)
	}
	got, err := codecproto.ReadScores(&out, 0, 3)
	if want := []media.Score{{Value: 3, OK: true}, {}, {Value: 2, OK: true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := codecproto.ReadScores(&out, 1, 3); media.FailureOf(err) == nil || media.FailureOf(err).Code != media.Corrupt {
		t.Errorf("got %v, want corrupt", err)
	}
	if _, err := codecproto.ReadAnswer(&out, 2, spec); err != nil {
		t.Errorf("the rendering: %v", err)
	}
}

func testComparisonIsBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 129} {
		var wire bytes.Buffer
		if err := codecproto.WriteComparison(&wire, 1, []byte("x"), testSpec(), make([]media.Comparison, n)); err == nil {
			t.Errorf("%d files were sent", n)
		}
	}
	request, err := json.Marshal(map[string]any{"seq": 1, "compare": make([]struct{}, 129)})
	if err != nil {
		t.Fatal(err)
	}
	var in, out bytes.Buffer
	write := func(kind byte, payload []byte) {
		if err := codecproto.WriteFrame(&in, kind, payload); err != nil {
			t.Fatal(err)
		}
	}
	write('Q', request)
	write('S', []byte("ok"))
	for range 129 {
		write('C', []byte("x"))
	}
	if err := codecproto.Serve(t.Context(), &in, &out, testRender, testCompare); err == nil {
		t.Error("129 files were read")
	}
}

func testComparisonWrongScores(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"of_another_request": `{"seq":2,"scores":[{"value":1,"ok":true}]}`,
		"too_few":            `{"seq":1,"scores":[]}`,
		"above_identity":     `{"seq":1,"scores":[{"value":101,"ok":true}]}`,
		"no_json":            `{`,
	} {
		var wire bytes.Buffer
		if err := codecproto.WriteFrame(&wire, 'R', []byte(answer)); err != nil {
			t.Fatal(err)
		}
		if got, err := codecproto.ReadScores(&wire, 1, 1); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
