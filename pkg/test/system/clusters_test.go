package system_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
	"vitrine.io/pkg/test/servers"
)

// TestTwoCaches runs two clusters with one Postgres, one Kafka and a cache each. A change that one cluster makes reaches the
// cache of the other as an event.
func TestTwoCaches(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("api")
	addrs, prefix := servers.Redis(t)
	second := port.Addr(t)
	s.start("api", "VITRINE_HTTP_ADDR="+second, "VITRINE_REDIS_ADDRS="+strings.Join(addrs, ","),
		"VITRINE_REDIS_KEY_PREFIX="+prefix, "VITRINE_REDIS_NAME=second")
	clusters := []*client.Client{s.api(), client.New("http://"+second, client.Options{Timeout: timeout, FreshConns: true})}
	user := s.user()
	const products = 12 // over all partitions
	var paths []string
	for range products {
		paths = append(paths, fmt.Sprintf("/products/%d", s.post(user).ID))
	}
	get := func(cluster int, path string) string {
		t.Helper()
		a, err := clusters[cluster].Do(t.Context(), http.MethodGet, path, nil)
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("GET %s of cluster %d: %v, %d", path, cluster, err, a.Status)
		}
		return string(a.Body)
	}
	for i, path := range paths {
		for cluster := range clusters {
			get(cluster, path) // fills its cache
		}
		name := fmt.Sprintf("changed %d", i)
		a, err := clusters[i%2].Do(t.Context(), http.MethodPatch, path, map[string]string{"product_name": name})
		if err != nil || a.Status != http.StatusOK {
			t.Fatalf("PATCH %s: %v, %d %s", path, err, a.Status, a.Body)
		}
		for cluster := range clusters {
			eventually(t, fmt.Sprintf("cluster %d has the change of %s by the other", cluster, path), func() error {
				if body := get(cluster, path); !strings.Contains(body, `"`+name+`"`) {
					return fmt.Errorf("got %s", body)
				}
				return nil
			})
		}
	}
}

// TestFailover promotes a standby, which is the first host of the DSN. The programs keep running and use the new primary.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary, standby := servers.PostgresPair(t)
	s := newSystem(t, healthEnv(standby.BothDSN(t, primary)))
	s.start("worker")
	s.start("api")
	user := s.user()
	before := s.awaitSettled(s.post(user, s.sources.URL+photoPath).ID)
	standby.CatchUp(t, primary)
	primary.Stop(t)
	body := fmt.Sprintf(`{"user_id":%d,"product_name":"later","product_price":"1"}`, user)
	if a := s.call(http.MethodPost, "/products", body, "Idempotency-Key", "k"); a.Status != http.StatusServiceUnavailable ||
		a.Header.Get("Retry-After") == "" {
		t.Errorf("without a primary: %d, Retry-After %q: %s", a.Status, a.Header.Get("Retry-After"), a.Body)
	}
	if p := s.awaitSettled(before.ID); p.Version != before.Version {
		t.Errorf("a cached read without a primary: %+v", p)
	}
	standby.Promote(t)
	eventually(t, "a write succeeds", func() error {
		if a := s.call(http.MethodPost, "/products", body, "Idempotency-Key", "k"); a.Status != http.StatusCreated {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	if p := s.awaitSettled(s.post(user, s.sources.URL+drawingPath).ID); p.ImageStatus != "ready" {
		t.Errorf("after the failover: %+v", p)
	}
}
