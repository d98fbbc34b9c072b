package fetch_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The addresses of the tests: of large sites, so surely public. Nothing is ever sent there, the dialler is the test's.
const (
	publicV4 = "93.184.215.14"
	otherV4  = "151.101.1.140"
	publicV6 = "2606:4700:4700::1111"
)

// world is the internet as a test wants it: what names mean, and who answers at which address.
type world struct {
	mu       sync.Mutex
	names    map[string][]string            // host -> addresses
	fallback string                         // the address of every other name; "": they do not exist
	servers  map[string]string              // "ip:port" -> the real listener
	dial     func(string) (net.Conn, error) // when set, answers instead of servers
	asked    []string                       // names
	dialled  []string                       // addresses
}

func newWorld() *world {
	return &world{names: map[string][]string{}, servers: map[string]string{}}
}

// site makes host a name of ip, whose port is served by handler.
func (w *world) site(t *testing.T, host, ip, port string, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	w.names[host] = []string{ip}
	w.servers[net.JoinHostPort(ip, port)] = server.Listener.Addr().String()
	return server
}

func (w *world) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, host)
	texts, found := w.names[host]
	if !found && w.fallback != "" {
		texts = []string{w.fallback}
	} else if !found {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	addrs := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs, ctx.Err()
}

func (w *world) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, address)
	target, dial := w.servers[address], w.dial
	w.mu.Unlock()
	switch {
	case dial != nil:
		return dial(address)
	case target == "":
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, target)
}

func (w *world) dials() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.dialled)
}

func config() fetch.Config {
	return fetch.Config{UserAgent: "Vitrine", MinRate: 1024, RateWindow: 10 * time.Second}
}

func (w *world) network() fetch.Network { return fetch.Network{Resolver: w, Dial: w.Dial} }

// fetcher returns a Fetcher in the world.
func (w *world) fetcher() *fetch.Fetcher { return newFetcher(w.network(), 1024) }

func newFetcher(network fetch.Network, minRate int64) *fetch.Fetcher {
	c := config()
	c.MinRate = minRate
	return fetch.New(c, network, time.Now, prometheus.NewRegistry(), zap.NewNop())
}

func rules() pipeline.Fetch { return pipeline.Default().Spec.Fetch }

// fails fetches url and demands a Failure with the code.
func (w *world) fails(t *testing.T, url string, want media.Code) media.Failure {
	t.Helper()
	got, err := w.fetcher().Fetch(t.Context(), url, rules(), 1<<20)
	return failed(t, got.Body, err, want)
}

func failed(t *testing.T, body []byte, err error, want media.Code) media.Failure {
	t.Helper()
	f := media.FailureOf(err)
	if f == nil || f.Code != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if body != nil {
		t.Errorf("a failure came with %d bytes", len(body))
	}
	tells := func(c rune) bool { return c == ':' || c == '/' }
	if f.Detail == "" || strings.ContainsFunc(f.Detail, tells) || strings.Contains(f.Detail, ".") {
		t.Errorf("the detail %q is empty, or tells of addresses", f.Detail)
	}
	return *f
}

// answer is a handler that sends body with headers, given in pairs.
func answer(status int, body string, headers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}
