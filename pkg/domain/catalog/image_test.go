package catalog_test

import (
	"slices"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestBytesSaved(t *testing.T) {
	t.Parallel()
	file := func(bytes int64, marked bool) catalog.Rendition {
		return catalog.Rendition{Bytes: bytes, Default: marked}
	}
	for name, row := range map[string]struct {
		source int64
		files  []catalog.Rendition
		want   int64
		known  bool
	}{
		"smaller":              {1000, []catalog.Rendition{file(10, false), file(300, true)}, 700, true},
		"larger":               {1000, []catalog.Rendition{file(1300, true)}, -300, true},
		"as large":             {1000, []catalog.Rendition{file(1000, true)}, 0, true},
		"no rendition":         {0, nil, 0, false},
		"no default rendition": {1000, []catalog.Rendition{file(10, false)}, 0, false},
		"unknown source size":  {0, []catalog.Rendition{file(300, true)}, 0, false},
	} {
		img := catalog.Image{SourceBytes: row.source, Renditions: row.files}
		if got, ok := img.BytesSaved(); ok != row.known || ok && got != row.want {
			t.Errorf("%s: got %d, %v; want %d, %v", name, got, ok, row.want, row.known)
		}
	}
}

func TestExceeds(t *testing.T) {
	t.Parallel()
	img := catalog.Image{Width: 40, Height: 30, SourceBytes: 1000}
	for want, renditions := range map[bool][]catalog.Rendition{
		true:  {{Width: 40, Height: 30, Bytes: 1001}},
		false: {{Width: 40, Height: 30, Bytes: 1000}, {Width: 40, Height: 29, Bytes: 1001}, {Width: 39, Height: 30, Bytes: 1001}},
	} {
		for _, r := range renditions {
			if got := img.LargerThanSource(r); got != want {
				t.Errorf("%+v: got %v, want %v", r, got, want)
			}
		}
	}
	img.SourceBytes = 0
	if img.LargerThanSource(catalog.Rendition{Width: 40, Height: 30, Bytes: 1}) {
		t.Error("a rendition exceeds a source of unknown size")
	}
}

func TestFinishReplacesDropped(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	dropped := []media.Dropped{{Name: "full", Format: pipeline.AVIF, Reason: media.LargerThanSibling}}
	for _, want := range [][]media.Dropped{dropped, nil} {
		a := h.begin(t, p, 0)
		r := result(a)
		r.Dropped = want
		if err := h.Finish(t.Context(), a, r); err != nil {
			t.Fatal(err)
		}
		if got := h.product(t, p.ID).Images[0].Dropped; !slices.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		h.requeue(t, p.ID, 0)
	}
}
