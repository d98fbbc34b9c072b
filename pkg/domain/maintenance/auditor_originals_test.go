package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// keptInstallation is an installation with a bucket for originals.
type keptInstallation struct {
	*fakeInstallation
	originals *fakeInstallation // only a bucket
}

func newKeptInstallation() keptInstallation {
	return keptInstallation{newFakeInstallation(), newFakeInstallation()}
}

// keep publishes an image with an original.
func (f keptInstallation) keep(image catalog.ImageID) {
	f.publish(image)
	key := fmt.Sprintf("originals/1/%d/1-a/source", image)
	f.originals.place(key, 48*time.Hour)
	f.referenced[fmt.Sprintf("originals/1/%d/1-a/", image)] = true
	f.published[len(f.published)-1].Original = maintenance.Object{Key: key, Size: 5}
}

func (f keptInstallation) auditor() auditor { return f.newAuditor(auditorConfig()) }

func (f keptInstallation) newAuditor(cfg maintenance.AuditorConfig) auditor {
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewRegistry()
	return auditor{maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: f, References: f, Bucket: f, Originals: f.originals, Catalog: f, Now: time.Now, Log: zap.New(core),
	}, cfg, reg), reg, logs}
}

func TestAuditorOriginals(t *testing.T) {
	t.Parallel()
	t.Run("orphans_are_scheduled", testAuditorOriginalsOrphans)
	t.Run("probe_is_no_foreign_object", testAuditorOriginalsProbe)
	t.Run("missing_or_different_original_is_forgotten", testAuditorOriginalsForgotten)
	t.Run("too_many_missing_ones_are_left_alone_and_renditions_repaired", testAuditorOriginalsTooMany)
	t.Run("bucket_of_another_owner_stops_the_scans", testAuditorOriginalsOwner)
	t.Run("outage_is_no_finding", testAuditorOriginalsOutage)
	t.Run("restored_rows_forget_all_that_are_missing", testAuditorOriginalsRestored)
}

func testAuditorOriginalsOrphans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		f.keep(1)
		f.originals.place("originals/1/2/3-orphan/source", 25*time.Hour)
		f.originals.place("originals/1/2/4-new/source", 23*time.Hour)
		f.originals.place("products/1/1/1-a/full.jpg", 25*time.Hour) // another directory of the bucket
		a := f.auditor()
		during(t, oneScan, a.Run)
		if got := f.deletions; len(got) != 1 || got["originals/1/2/3-orphan/"] != 10*time.Minute {
			t.Errorf("deletions %v, want the orphan after the grace period", got)
		}
		a.want(t, map[string]float64{"orphans_total": 1, "stopped": 0, "errors_total": 0})
	})
}

func testAuditorOriginalsProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		f.products = 200_000 // several shards
		f.originals.place(maintenance.ProbeKey, 48*time.Hour)
		a := f.auditor()
		during(t, time.Hour, a.Run)
		a.want(t, map[string]float64{"unrecognized_keys_total": 0, "objects_listed_total": 0, "errors_total": 0})
	})
}

func testAuditorOriginalsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		for i := range catalog.ImageID(4) {
			f.keep(i + 1)
		}
		f.publish(5) // without one
		delete(f.originals.objects, "originals/1/2/1-a/source")
		f.originals.objects["originals/1/3/1-a/source"] = maintenance.Object{Key: "originals/1/3/1-a/source", Size: 4}
		a := f.auditor()
		during(t, 59*time.Minute, a.Run)
		if want := []catalog.ImageID{2, 3}; !slices.Equal(f.forgotten, want) || len(f.requested) != 0 {
			t.Errorf("forgotten %v, requested %v, want %v and none", f.forgotten, f.requested, want)
		}
		a.want(t, map[string]float64{"originals_missing_total": 2, "missing_total": 0, "stopped": 0, "errors_total": 0})
	})
}

func testAuditorOriginalsTooMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		for i := range catalog.ImageID(25) { // three batches of at most ten
			f.keep(i + 1)
		}
		clear(f.originals.objects)
		delete(f.objects, f.published[1].Objects[0].Key) // of the first batch
		delete(f.objects, f.published[24].Objects[0].Key)
		cfg := auditorConfig()
		cfg.Rows = 10
		a := f.newAuditor(cfg)
		during(t, 59*time.Minute, a.Run)
		if want := []catalog.ImageID{2, 25}; len(f.forgotten) != 0 || !slices.Equal(f.requested, want) {
			t.Errorf("forgotten %v, requested %v, want none and %v", f.forgotten, f.requested, want)
		}
		if at := f.at(t, "rows"); at.Stopped != "too_many_originals_missing" || !at.Done {
			t.Errorf("at %+v", at)
		}
		if a.logs.FilterMessage("too many originals are missing; their images keep them").Len() != 3 {
			t.Error("the log does not say so of each batch")
		}
		a.want(t, map[string]float64{"stopped": 1, "originals_missing_total": 0, "missing_total": 2, "errors_total": 0})
	})
}

func testAuditorOriginalsOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		f.originals.owner = "other"
		f.keep(1)
		f.originals.place("originals/1/2/3-orphan/source", 25*time.Hour)
		clear(f.originals.objects)
		a := f.auditor()
		during(t, oneScan, a.Run)
		if len(f.forgotten)+len(f.deletions) != 0 {
			t.Errorf("forgotten %v, deletions %v", f.forgotten, f.deletions)
		}
		for _, scan := range []string{"rows", "originals"} {
			if at := f.at(t, scan); at.Stopped != "other_owner" {
				t.Errorf("%s: at %+v", scan, at)
			}
		}
		if at := f.at(t, "objects"); at.Stopped != "" {
			t.Errorf("the other bucket: at %+v", at)
		}
	})
}

func testAuditorOriginalsOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newKeptInstallation()
		f.keep(1)
		clear(f.originals.objects)
		f.originals.failing = "originals/1/"
		a := f.auditor()
		during(t, oneScan, a.Run)
		if len(f.forgotten) != 0 {
			t.Errorf("forgotten %v", f.forgotten)
		}
		if a.value(t, "errors_total") == 0 {
			t.Error("no error is counted")
		}
	})
}

func testAuditorOriginalsRestored(t *testing.T) {
	t.Parallel()
	f := newKeptInstallation()
	for i := range catalog.ImageID(4) {
		f.keep(i + 1)
	}
	clear(f.originals.objects)
	got, err := f.auditor().CheckRows(t.Context(), 0, 10, atOnce)
	if err != nil || got.Missing != 0 || got.Failed != 0 || len(f.forgotten) != 4 {
		t.Errorf("got %+v, %v, forgotten %v", got, err, f.forgotten)
	}
	f.forgetErr = catalog.ErrDone // it was replaced meanwhile
	if got, err := f.auditor().CheckRows(t.Context(), 0, 10, atOnce); err != nil || got.Failed != 0 {
		t.Errorf("replaced: got %+v, %v", got, err)
	}
	f.forgetErr = errors.New("refused")
	if _, err := f.auditor().CheckRows(t.Context(), 0, 10, atOnce); !errors.Is(err, f.forgetErr) {
		t.Errorf("got %v, want the error of too many", err)
	}
}

// prefixes records which prefixes are deleted; one of them fails.
type prefixes struct {
	deleted []string
	failing string
}

func (p *prefixes) DeletePrefixes(_ context.Context, list []string) []error {
	errs := make([]error, len(list))
	for i, prefix := range list {
		if p.deleted = append(p.deleted, prefix); prefix == p.failing {
			errs[i] = errors.New("refused")
		}
	}
	return errs
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	list := []string{"originals/1/1/1-a/", "products/1/1/1-a/", "originals/1/1/2-b/", "products/1/1/2-b/"}
	images, kept := &prefixes{}, &prefixes{failing: list[2]}
	errs := maintenance.Buckets{Renditions: images, Originals: kept}.DeletePrefixes(t.Context(), list)
	if errs[0] != nil || errs[1] != nil || errs[2] == nil || errs[3] != nil {
		t.Errorf("got %v, want the error of the third", errs)
	}
	if !slices.Equal(images.deleted, []string{list[1], list[3]}) || !slices.Equal(kept.deleted, []string{list[0], list[2]}) {
		t.Errorf("deleted %v and %v", images.deleted, kept.deleted)
	}
	errs = maintenance.Buckets{Renditions: images}.DeletePrefixes(t.Context(), list)
	if !fault.Is(errs[0], fault.Unavailable) || errs[1] != nil || !fault.Is(errs[2], fault.Unavailable) || len(errs) != 4 {
		t.Errorf("without a bucket: got %v", errs)
	}
}
