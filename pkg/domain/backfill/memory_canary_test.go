package backfill_test

import (
	"context"
	"slices"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
)

// memorySample is a sample in memory.
type memorySample struct {
	backfill.CanarySample
	due time.Time
}

func (m *memory) PickSamples(_ context.Context, _ backfill.Backfill, _ map[string]string, ids []int64, limit int,
) ([]backfill.ImageRef, error) {
	var found []backfill.ImageRef
	for _, id := range ids[:min(limit, len(ids))] {
		found = append(found, backfill.ImageRef{ProductID: 1, ImageID: catalog.ImageID(id)})
	}
	return found, nil
}

func (m *memory) StartCanary(ctx context.Context, name string, images []backfill.ImageRef,
	fn func(*backfill.Backfill, time.Time) error,
) (backfill.Backfill, error) {
	b, err := m.EditBackfill(ctx, name, fn)
	if err != nil {
		return b, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples[b.ID] = nil
	for _, img := range images {
		m.samples[b.ID] = append(m.samples[b.ID], &memorySample{
			CanarySample: backfill.CanarySample{ImageID: img.ImageID, State: backfill.SampleWaiting}, due: m.now,
		})
	}
	return b, nil
}

func (m *memory) SendSamples(_ context.Context, id int64, inFlight int, lost time.Duration) (sent int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.samples[id] {
		if s.State == backfill.SampleSent && s.due.After(m.now) {
			inFlight--
		}
	}
	for _, s := range m.samples[id] {
		open := s.State == backfill.SampleWaiting || s.State == backfill.SampleSent
		if open && !s.due.After(m.now) && sent < inFlight {
			s.State, s.due = backfill.SampleSent, m.now.Add(lost)
			sent++
		}
	}
	return sent, m.sampleErr
}

func (m *memory) Samples(_ context.Context, id int64) ([]backfill.CanarySample, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []backfill.CanarySample
	for _, s := range m.samples[id] {
		list = append(list, s.CanarySample)
	}
	slices.SortFunc(list, func(a, b backfill.CanarySample) int { return int(a.ImageID - b.ImageID) })
	return list, m.sampleErr
}

func (m *memory) DropSamples(_ context.Context, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.backfills[id].Canary.State != backfill.CanaryRunning {
		delete(m.samples, id)
	}
	return m.sampleErr
}

// endSample ends the sample of an image as a worker does.
func (m *memory) endSample(id int64, image catalog.ImageID, state backfill.SampleState, o backfill.SampleOutcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.samples[id] {
		if s.ImageID == image && s.State == backfill.SampleSent {
			s.State, s.SampleOutcome = state, o
		}
	}
}
