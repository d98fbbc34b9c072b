package codecproto_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// drop moves an output of an answer to its dropped ones.
func drop(rendered *media.Rendered, name string, format pipeline.Format, reason media.Reason) {
	rendered.Files = slices.DeleteFunc(rendered.Files, func(o media.EncodedFile) bool {
		return o.Name == name && o.Format == format
	})
	rendered.Dropped = append(rendered.Dropped, media.Dropped{Name: name, Format: format, Reason: reason})
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	t.Run("dropped_and_lowered_outputs", testAnswerDroppedAndLoweredOutputs)
	t.Run("invalid_drops", testAnswerInvalidDrops)
	t.Run("duplicate_drop", testAnswerDuplicateDrop)
	t.Run("round_trip", testAnswerRoundTrip)
	t.Run("shared_body_is_sent_once", testAnswerSharedBodyIsSentOnce)
	t.Run("long_failure_texts_are_cut", testAnswerLongFailureTextsAreCut)
}

func testAnswerDroppedAndLoweredOutputs(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	for _, last := range []string{"card.webp", "thumb.jpeg"} {
		rendered := testRendered(spec)
		drop(&rendered, "thumb", pipeline.WebP, media.LargerThanSource)
		if last == "card.webp" {
			drop(&rendered, "card", pipeline.WebP, media.LargerThanSibling)
		}
		rendered.Files[0].Lowered = 57
		var wire bytes.Buffer
		if err := codecproto.WriteAnswer(&wire, 5, rendered); err != nil {
			t.Fatal(err)
		}
		if got, err := codecproto.ReadAnswer(&wire, 5, spec); err != nil || !reflect.DeepEqual(got, rendered) {
			t.Errorf("got %+v and %v, want %+v", got, err, rendered)
		}
	}
}

func testAnswerInvalidDrops(t *testing.T) {
	t.Parallel()
	spec := testSpec() // thumb and card as webp and jpeg; card as jpeg is the default
	const why = media.LargerThanSibling
	for what, spoil := range map[string]func(*media.Rendered){
		"that drops card as jpeg": func(rendered *media.Rendered) { drop(rendered, "card", pipeline.JPEG, why) },
		`for the reason ""`:       func(rendered *media.Rendered) { drop(rendered, "card", pipeline.WebP, "") },
		`for the reason "ugly"`:   func(rendered *media.Rendered) { drop(rendered, "card", pipeline.WebP, "ugly") },
		"answer without thumb": func(rendered *media.Rendered) {
			drop(rendered, "thumb", pipeline.WebP, why)
			drop(rendered, "thumb", pipeline.JPEG, why)
		},
		"want card as jpeg": func(rendered *media.Rendered) { // present and dropped
			rendered.Dropped = append(rendered.Dropped, media.Dropped{Name: "card", Format: pipeline.WebP, Reason: why})
		},
		"4 outputs and 1 dropped": func(rendered *media.Rendered) { // not requested
			rendered.Dropped = append(rendered.Dropped, media.Dropped{Name: "card", Format: pipeline.AVIF, Reason: why})
		},
		"want thumb as webp": func(rendered *media.Rendered) { // in another order
			drop(rendered, "card", pipeline.WebP, why)
			drop(rendered, "thumb", pipeline.WebP, why)
		},
		"thumb as webp: {": func(rendered *media.Rendered) { rendered.Files[0].Lowered = 101 },
		"Lowered:-1":       func(rendered *media.Rendered) { rendered.Files[0].Lowered = -1 },
	} {
		rendered := testRendered(spec)
		spoil(&rendered)
		var wire bytes.Buffer
		if err := codecproto.WriteAnswer(&wire, 5, rendered); err != nil {
			t.Fatal(err)
		}
		got, err := codecproto.ReadAnswer(&wire, 5, spec)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %d outputs, %+v and %v, want an error with %q", len(got.Files), got.Dropped, err, what)
		}
	}
}

func testAnswerDuplicateDrop(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	rendered := testRendered(spec)
	drop(&rendered, "thumb", pipeline.WebP, media.LargerThanSource)
	rendered.Dropped = append(rendered.Dropped, rendered.Dropped[0])
	var wire bytes.Buffer
	if err := codecproto.WriteAnswer(&wire, 5, rendered); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d outputs and 2 dropped", len(rendered.Files))
	if _, err := codecproto.ReadAnswer(&wire, 5, spec); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
}
