package kafkatest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

func ensureIsIdempotent(t *testing.T, config kafka.Config) {
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatalf("make admin: %v", err)
	}
	if err := admin.Ping(t.Context()); err != nil {
		t.Fatalf("ping: %v", err)
	}
	missing, err := admin.Check(t.Context())
	if err != nil || len(missing) != len(event.Topics()) || !missing[0].Danger {
		t.Errorf("check before: got %v (%v), want every topic missing", missing, err)
	}
	errs := make([]error, 4)
	var racing sync.WaitGroup
	for i := range errs {
		racing.Go(func() { errs[i] = admin.EnsureTopics(t.Context()) })
	}
	racing.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("four concurrent calls: %v", err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Errorf("second call: %v", err)
	}
	if found, err := admin.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check after: got %v (%v), want no difference", found, err)
	}
}

func differencesAreReported(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	config.Partitions, config.Replication, config.MinISR = config.Partitions+1, 3, 2
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatalf("make admin: %v", err)
	}
	found, err := admin.Check(t.Context())
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	danger := make(map[string]bool)
	for _, d := range found {
		if d.Topic == config.Name(event.TopicRequested) {
			danger[d.Setting] = d.Danger
		}
	}
	for setting, want := range map[string]bool{"partitions": false, "replication": true, "min.insync.replicas": true} {
		if got, ok := danger[setting]; !ok || got != want {
			t.Errorf("%s: reported %t, dangerous %t; want reported, dangerous %t (all: %v)", setting, ok, got, want, found)
		}
	}
	// EnsureTopics never adds partitions: that would move keys to other partitions.
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := admin.EnsureTopics(ctx); err != nil {
		t.Errorf("ensure existing topics: %v", err)
	}
	if after, err := admin.Check(t.Context()); err != nil || len(after) != len(found) {
		t.Errorf("check after EnsureTopics: got %v (%v), want the same as before", after, err)
	}
}
