package system_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/nameserver"
	"vitrine.io/pkg/test/port"
)

// breakerEnv makes the breakers try again within seconds.
func breakerEnv(more map[string]string) map[string]string {
	env := map[string]string{
		"VITRINE_BREAKER_INTERVAL": "300ms", "VITRINE_BREAKER_MAX_PAUSE": "2s", "VITRINE_BREAKER_TIMEOUT": "3s",
		"VITRINE_EGRESS_PROBE_TIMEOUT": "1s",
	}
	for name, value := range more {
		env[name] = value
	}
	return env
}

// series returns the sum of a metric's series that have a label.
func (s *system) series(r *running, name, label string) float64 {
	s.t.Helper()
	var sum float64
	for line := range strings.Lines(string(s.call("GET", r.admin+"/metrics", "").Body)) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label) {
			var v float64
			fields := strings.Fields(line)
			if _, err := fmt.Sscan(fields[len(fields)-1], &v); err != nil {
				s.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// awaitOpenings waits until the worker's breaker has opened n times: it lets jobs through every two seconds.
func (s *system) awaitOpenings(r *running, dependency string, n float64) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the breaker of %s has opened %v times", dependency, n), func() error {
		if got := s.series(r, "vitrine_worker_breaker_opened_total", `dependency="`+dependency+`"`); got < n {
			return fmt.Errorf("%v times", got)
		}
		return nil
	})
}

// wantFirstAttempts waits until the products are settled, and requires that all images are ready after one attempt.
func (s *system) wantFirstAttempts(products ...client.Product) {
	s.t.Helper()
	for _, posted := range products {
		for i, img := range s.awaitSettled(posted.ID).Images {
			if img.Status != "ready" || img.Attempts != 1 {
				s.t.Errorf("product %d, image %d: %s %q after %d attempts, want ready after one",
					posted.ID, i, img.Status, img.ErrorCode(), img.Attempts)
			}
		}
	}
}

func TestNetworkOutage(t *testing.T) {
	t.Parallel()
	t.Run("resolver_is_away", testNetworkOutageResolverIsAway)
	t.Run("egress_is_away", testNetworkOutageEgressIsAway)
}

func testNetworkOutageResolverIsAway(t *testing.T) {
	t.Parallel()
	names, err := nameserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = names.Close() })
	s := newSystem(t, breakerEnv(map[string]string{
		"VITRINE_FETCH_RESOLVER": names.Addr, "VITRINE_FETCH_CONTROL_NAMES": "control.test.",
	}))
	work := s.start("worker")
	s.start("api")
	_, listen, err := net.SplitHostPort(strings.TrimPrefix(s.sources.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	source := func(host string) string { return "http://" + host + ":" + listen + photoPath }
	user := s.user()
	var products []client.Product
	openings := 0.0
	for _, mode := range []nameserver.Mode{nameserver.Fails, nameserver.Silent} {
		names.SetMode(mode)
		products = append(products, s.post(user, source("a.test"), source("b.test"), source("c.test")))
		openings += 3
		s.awaitOpenings(work, "resolver", openings)
		names.SetMode(nameserver.Answers)
		s.wantFirstAttempts(products...)
	}
	absent := s.awaitSettled(s.post(user, source("x.absent.test")).ID).Images[0]
	if absent.ErrorCode() != "dns_failed" || absent.Attempts != 5 {
		t.Errorf("a name that does not exist: %s after %d attempts, want dns_failed after 5", absent.ErrorCode(), absent.Attempts)
	}
	if got := s.series(work, "vitrine_worker_outcomes_total", `code="resolver_unavailable"`); got < 6 {
		t.Errorf("%v deferrals, want at least one for each opening", got)
	}
}

func testNetworkOutageEgressIsAway(t *testing.T) {
	t.Parallel()
	s := newSystem(t, breakerEnv(nil))
	work := s.start("worker")
	s.start("api")
	var addrs []string
	var sites []*imageserver.Server
	var users []int64
	connect := func() {
		for i, addr := range addrs {
			site, err := imageserver.StartAt(addr)
			if err != nil {
				t.Fatal(err)
			}
			sites[i] = site
		}
	}
	for range 3 {
		addrs, sites, users = append(addrs, port.Addr(t)), append(sites, nil), append(users, s.user())
	}
	connect()
	t.Cleanup(func() {
		for _, site := range sites {
			_ = site.Close()
		}
	})
	var products []client.Product
	post := func() {
		for i, user := range users {
			products = append(products, s.post(user, "http://"+addrs[i]+photoPath, "http://"+addrs[i]+drawingPath))
		}
	}
	post()
	s.wantFirstAttempts(products...)
	for _, site := range sites {
		_ = site.Close()
	}
	post()
	s.awaitOpenings(work, "egress", 3)
	if err := work.Stop(); err != nil {
		t.Fatal(err)
	}
	again := s.start("worker") // it has reached no host and takes the recent sources from the database
	post()
	s.awaitOpenings(again, "egress", 3)
	connect()
	s.wantFirstAttempts(products...)
}
