package system_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/client"
)

// abuse are lists that read many products or try to. The planner takes the last for cheap: half of all products cost more
// than 1.5, but none of the first user's does.
var abuse = []string{
	"/products?name=%21%21%21",
	"/products?user_id=1&name=%21%21",
	"/products?user_id=1&min_price=1.5",
	"/products?user_id=1&min_price=1.5&limit=100",
}

// TestListAbuse sends 50 expensive lists a second beside GETs of cached products. No GET fails, and no call but the lists
// waits for a connection to Postgres. The test reports the GETs' times and asserts none: they depend on the machine.
func TestListAbuse(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]string{
		"VITRINE_POSTGRES_MAX_OPEN_CONNS": "10", "VITRINE_POSTGRES_LIST_STATEMENT_TIMEOUT": "100ms",
		"VITRINE_POSTGRES_LIST_MAX_COST": "2000",
	})
	api := s.start("api")
	s.stock()
	paths := make([]string, 20)
	for i := range paths {
		paths[i] = fmt.Sprint("/products/", i+1)
		s.call(http.MethodGet, paths[i], "") // into the cache
	}
	quiet := s.getAll(paths, 2000, nil)

	ended := make(chan struct{})
	var answers map[string]int
	go func() {
		defer close(ended)
		answers = s.abuse(250, 20*time.Millisecond)
	}()
	loaded := s.getAll(paths, 2000, ended)
	<-ended
	if waits := s.metric(api, `vitrine_postgres_connection_waits_total{pool="main"}`); waits != 0 {
		t.Errorf("calls beside the lists waited %g times for a connection", waits)
	}
	for answer := range answers {
		if !slices.Contains([]string{"200 ", "422 invalid_fields", "503 lists_busy", "503 list_timeout"}, answer) {
			t.Errorf("a list got %s", answer)
		}
	}
	t.Logf("lists: %v; %d and %d GETs, p99 %s without and %s with the lists: ratio %.1f", answers, len(quiet), len(loaded),
		p99(quiet), p99(loaded), float64(p99(loaded))/float64(p99(quiet)))
}

// stock adds two users with 60000 products each. Those of the first cost 1, those of the second 2.
func (s *system) stock() {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.env["VITRINE_POSTGRES_DSN"])
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(s.t.Context()) }()
	for _, statement := range []string{
		"INSERT INTO users (name, email, email_key) SELECT 'u', g, g FROM generate_series(1, 2) g",
		`INSERT INTO products (user_id, product_name, product_description, product_price)
			SELECT 1 + g % 2, 'Cup', repeat('d', 300), 1 + g % 2 FROM generate_series(1, 120000) g`,
		"VACUUM ANALYZE products",
	} {
		if _, err := conn.Exec(s.t.Context(), statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// getAll reads the paths in turn, at least as often as count says and until ended is closed, and returns the times.
func (s *system) getAll(paths []string, count int, ended <-chan struct{}) []time.Duration {
	s.t.Helper()
	api := client.New(s.url, client.Options{Timeout: timeout})
	defer api.Close()
	var times []time.Duration
	for i := 0; ; i++ {
		select {
		case <-ended:
			ended = nil
		default:
		}
		if i >= count && ended == nil {
			return times
		}
		start := time.Now()
		got, err := api.Do(s.t.Context(), http.MethodGet, paths[i%len(paths)], nil)
		times = append(times, time.Since(start))
		if err != nil || got.Status != http.StatusOK {
			s.t.Fatalf("GET %d: %d %s %v", i, got.Status, got.Body, err)
		}
	}
}

// abuse sends count lists, one in each interval, and returns how often each answer came: a status and a problem's code.
func (s *system) abuse(count int, interval time.Duration) map[string]int {
	api := client.New(s.url, client.Options{Timeout: timeout})
	defer api.Close()
	var mu sync.Mutex
	answers := map[string]int{}
	var all sync.WaitGroup
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := range count {
		<-tick.C
		all.Go(func() {
			got, err := api.Do(s.t.Context(), http.MethodGet, abuse[i%len(abuse)], nil)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answers[err.Error()]++
				return
			}
			answers[fmt.Sprint(got.Status, " ", got.Code())]++
		})
	}
	all.Wait()
	return maps.Clone(answers)
}

func p99(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)*99/100].Round(time.Microsecond)
}
