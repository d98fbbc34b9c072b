package servers_test

import (
	"context"
	"os"
	"testing"
	"time"

	"vitrine.io/pkg/test/servers"
)

func TestStack(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a server; `make test` runs it")
	}
	// Nobody speaks to the brokers here, so that where clients are sent does not matter.
	began := time.Now()
	s, err := servers.StartStack(os.Getenv, [servers.StackBrokers]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(began))
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	masters := s.Masters(ctx)
	if len(masters) != 3 {
		t.Fatalf("%d masters, want 3", len(masters))
	}
	for _, n := range []*servers.Node{s.Postgres, masters[1], s.Kafka[2], s.MinIO} {
		if err := n.Pause(); err != nil {
			t.Error(err)
		}
		if err := n.Resume(); err != nil {
			t.Error(err)
		}
		if err := n.Kill(); err != nil {
			t.Error(err)
		}
	}
	eventually(ctx, t, "the replica has taken over", func() bool {
		now := s.Masters(ctx)
		return len(now) == 3 && now[0] != masters[1] && now[1] != masters[1] && now[2] != masters[1]
	})
	for _, n := range []*servers.Node{s.Postgres, masters[1], s.Kafka[2], s.MinIO} {
		if err := n.Start(); err != nil {
			t.Error(err)
		}
		if err := n.Await(ctx); err != nil {
			t.Error(err)
		}
	}
	eventually(ctx, t, "the cluster is whole again", func() bool { return s.RedisReady(ctx) == nil })
	t.Logf("done after %s", time.Since(began))
}

func eventually(ctx context.Context, t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
