package worker_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestReadyImageMetrics(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	dropped := []media.Dropped{
		{Name: "full", Format: pipeline.AVIF, Reason: media.LargerThanSibling},
		{Name: "card", Format: pipeline.WebP, Reason: media.LargerThanSource},
		{Name: "card", Format: pipeline.AVIF, Reason: media.LargerThanSource},
	}
	w.render = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{Format: pipeline.PNG, Width: 30, Height: 20, Dropped: dropped, Files: []media.EncodedFile{
			{Name: "full", Format: pipeline.JPEG, Width: 30, Height: 20, Lowered: 55, Default: true, Body: []byte("jpeg")},
			{Name: "full", Format: pipeline.WebP, Width: 30, Height: 20, Body: []byte("web")},
		}}, nil
	}
	const counted = `
			# HELP vitrine_worker_ready_source_bytes_total Bytes of the sources of images that became ready.
			# TYPE vitrine_worker_ready_source_bytes_total counter
			vitrine_worker_ready_source_bytes_total 6
			# HELP vitrine_worker_ready_default_bytes_total Bytes of the default renditions of images that became ready: ` +
		`clients download them instead of the sources.
			# TYPE vitrine_worker_ready_default_bytes_total counter
			vitrine_worker_ready_default_bytes_total 4
			# HELP vitrine_worker_renditions_dropped_total Files that were not stored, because another file of their ` +
		`rendition is better.
			# TYPE vitrine_worker_renditions_dropped_total counter
			vitrine_worker_renditions_dropped_total{reason="larger_than_sibling"} 1
			vitrine_worker_renditions_dropped_total{reason="larger_than_source"} 2
			# HELP vitrine_worker_renditions_lowered_total Files encoded at a lower quality, because they were larger ` +
		`than the source at its size.
			# TYPE vitrine_worker_renditions_lowered_total counter
			vitrine_worker_renditions_lowered_total 1
	`
	names := []string{
		"vitrine_worker_ready_source_bytes_total", "vitrine_worker_ready_default_bytes_total",
		"vitrine_worker_renditions_dropped_total", "vitrine_worker_renditions_lowered_total",
	}
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(w.reg, strings.NewReader(counted), names...); err != nil {
		t.Error(err)
	}
	if r := w.result; !slices.Equal(r.Dropped, dropped) || len(r.Renditions) != 2 || r.Renditions[0].Lowered != 55 {
		t.Errorf("the catalogue received %+v", r)
	}
	if len(w.objects) != 2 {
		t.Errorf("stored %v, want only the files that were not dropped", w.objects)
	}

	// An image that does not become ready changes no metric.
	w.recordErr = func(string) error { return catalog.ErrSuperseded }
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(w.reg, strings.NewReader(counted), names...); err != nil {
		t.Error(err)
	}
}
