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

// Public addresses of large sites. The tests never send anything to them, because they dial through fakeNet.
const (
	publicV4 = "93.184.215.14"
	otherV4  = "151.101.1.140"
	publicV6 = "2606:4700:4700::1111"
)

// fakeNet is a resolver and a dialler with the names and servers of a test.
type fakeNet struct {
	mu       sync.Mutex
	names    map[string][]string            // host -> addresses
	fallback string                         // the address of every other name; "" means that they do not exist
	servers  map[string]string              // "ip:port" -> the real listener
	dial     func(string) (net.Conn, error) // when set, answers instead of servers
	lookups  []string                       // names
	dialled  []string                       // addresses
}

func newFakeNet() *fakeNet {
	return &fakeNet{names: map[string][]string{}, servers: map[string]string{}}
}

// site resolves host to ip, and serves its port with handler.
func (fake *fakeNet) site(t *testing.T, host, ip, port string, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	fake.names[host] = []string{ip}
	fake.servers[net.JoinHostPort(ip, port)] = server.Listener.Addr().String()
	return server
}

func (fake *fakeNet) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	fake.mu.Lock()
	defer fake.mu.Unlock()
	fake.lookups = append(fake.lookups, host)
	texts, found := fake.names[host]
	if !found && fake.fallback != "" {
		texts = []string{fake.fallback}
	} else if !found {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	addrs := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs, ctx.Err()
}

func (fake *fakeNet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	fake.mu.Lock()
	fake.dialled = append(fake.dialled, address)
	target, dial := fake.servers[address], fake.dial
	fake.mu.Unlock()
	switch {
	case dial != nil:
		return dial(address)
	case target == "":
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, target)
}

func (fake *fakeNet) dials() []string {
	fake.mu.Lock()
	defer fake.mu.Unlock()
	return slices.Clone(fake.dialled)
}

// config returns a valid configuration.
func config() fetch.Config {
	return fetch.Config{UserAgent: "Vitrine", MinRate: 1024, RateWindow: 10 * time.Second, SlotWait: time.Minute}
}

func (fake *fakeNet) network() fetch.Network { return fetch.Network{Resolver: fake, Dial: fake.Dial} }

// fetcher returns a Fetcher that uses fake.
func (fake *fakeNet) fetcher() *fetch.Fetcher { return newFetcher(fake.network(), 1024) }

func newFetcher(network fetch.Network, minRate int64) *fetch.Fetcher {
	c := config()
	c.MinRate = minRate
	return fetch.New(c, bounds(), network, time.Now, prometheus.NewRegistry(), zap.NewNop())
}

// bounds returns the bounds of an installation that sets none, with networks that it allows.
func bounds(networks ...string) pipeline.Bounds {
	b := pipeline.DefaultBounds()
	b.AllowCIDRs = networks
	return b
}

// allowing returns a Fetcher that uses fake and may reach networks.
func (fake *fakeNet) allowing(networks ...string) *fetch.Fetcher {
	return fetch.New(config(), bounds(networks...), fake.network(), time.Now, prometheus.NewRegistry(), zap.NewNop())
}

// rules returns the rules of the default pipeline.
func rules() pipeline.Fetch { return pipeline.Default().Spec.Fetch }

// fails fetches url and requires a Failure with the code.
func (fake *fakeNet) fails(t *testing.T, url string, want media.Code) media.Failure {
	t.Helper()
	got, err := fake.fetcher().Fetch(t.Context(), url, rules(), 1<<20)
	return failed(t, got.Body, err, want)
}

// failed requires a Failure with the code, and no address in its detail.
func failed(t *testing.T, body []byte, err error, want media.Code) media.Failure {
	t.Helper()
	f := media.FailureOf(err)
	if f == nil || f.Code != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if body != nil {
		t.Errorf("got %d bytes with a failure", len(body))
	}
	ofAddress := func(c rune) bool { return c == ':' || c == '/' }
	if f.Detail == "" || strings.ContainsFunc(f.Detail, ofAddress) || strings.Contains(f.Detail, ".") {
		t.Errorf("the detail %q is empty or contains an address", f.Detail)
	}
	return *f
}

// answer returns a handler that sends body with headers, given in pairs.
func answer(status int, body string, headers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}
