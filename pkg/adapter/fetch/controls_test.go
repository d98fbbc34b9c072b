package fetch_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/dns/dnsmessage"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
)

// withControls returns a Fetcher on network with these control names.
func withControls(network fetch.Network, names ...string) *fetch.Fetcher {
	c := config()
	c.ControlNames = names
	return fetch.New(c, bounds(), network, time.Now, prometheus.NewRegistry(), zap.NewNop())
}

func TestControls(t *testing.T) {
	t.Parallel()
	t.Run("tell_whose_fault_it_is", testControlsTellWhoseFaultItIs)
	t.Run("silent_resolver_is_at_fault", testControlsSilentResolverIsAtFault)
	t.Run("stopped_resolver_is_at_fault", testControlsStoppedResolverIsAtFault)
	t.Run("fault_is_used_again_for_two_seconds", testControlsFaultIsUsedAgain)
	t.Run("answer_is_not_used_for_later_lookups", testControlsAnswerIsNotUsedForLaterLookups)
	t.Run("are_looked_up_once_at_a_time", testControlsAreLookedUpOnceAtATime)
	t.Run("outage_that_ends_between_both_lookups", testControlsOutageEnds)
	t.Run("check_resolver", testControlsCheckResolver)
}

func testControlsTellWhoseFaultItIs(t *testing.T) {
	t.Parallel()
	good, fails := reply{addrs: []string{publicV4}}, reply{code: dnsmessage.RCodeServerFailure}
	absent, refuses := reply{code: dnsmessage.RCodeNameError}, reply{code: dnsmessage.RCodeRefused}
	for name, row := range map[string]struct {
		source   reply
		controls []reply
		want     media.Code
	}{
		"no_such_name_while_controls_fail": {absent, []reply{fails, fails}, media.DNSFailed},
		"no_address_while_controls_fail":   {reply{}, []reply{fails, fails}, media.DNSFailed},
		"all_fail":                         {fails, []reply{fails, fails, fails}, media.ResolverUnavailable},
		"all_refused":                      {refuses, []reply{refuses}, media.ResolverUnavailable},
		"noise":                            {reply{noise: true}, []reply{fails}, media.ResolverUnavailable},
		"only_the_source_fails":            {fails, []reply{good, good, good}, media.DNSFailed},
		"no_such_control_is_an_answer":     {fails, []reply{absent}, media.DNSFailed},
		"one_of_three_answers":             {fails, []reply{good, fails, refuses}, media.ResolverUnavailable},
		"one_of_two_answers":               {fails, []reply{good, fails}, media.ResolverUnavailable},
		"two_of_three_answer":              {fails, []reply{good, absent, fails}, media.DNSFailed},
		"no_controls":                      {fails, nil, media.DNSFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone, names := map[string][]reply{"x.test.": {row.source}}, []string{}
			for i, c := range row.controls {
				control := "control" + string(rune('a'+i)) + ".test."
				zone[control], names = []reply{c}, append(names, control)
			}
			r := rules()
			r.ConnectTimeout /= 50 // of the source's lookup, if it has no answer
			f := withControls(newFakeNet().throughDNS(t, newNameServer(t, zone)), names...)
			got, err := f.Fetch(t.Context(), "http://x.test/", r, 100)
			failed(t, got.Body, err, row.want)
		})
	}
}

func testControlsSilentResolverIsAtFault(t *testing.T) {
	t.Parallel()
	s := newNameServer(t, map[string][]reply{"x.test.": {{mute: true}}, "control.test.": {{mute: true}}})
	r := rules()
	r.ConnectTimeout, r.Timeout = r.ConnectTimeout/50, r.Timeout/200 // shorter than the lookup of the control name
	got, err := withControls(newFakeNet().throughDNS(t, s), "control.test.").Fetch(t.Context(), "http://x.test/", r, 100)
	failed(t, got.Body, err, media.ResolverUnavailable)
}

// The port of the resolver is closed, as that of a CoreDNS that restarts.
func testControlsStoppedResolverIsAtFault(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := conn.LocalAddr().String()
	_ = conn.Close()
	network := fetch.Internet(addr)
	network.Dial = newFakeNet().Dial
	got, err := withControls(network, "control.test.").Fetch(t.Context(), "http://x.test/", rules(), 100)
	failed(t, got.Body, err, media.ResolverUnavailable)
}

// scripted is a resolver whose names have configured errors. It counts lookups.
type scripted struct {
	mu    sync.Mutex
	errs  map[string]error
	waits time.Duration // before each answer
	count map[string]int
}

var (
	errServer = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	errAbsent = &net.DNSError{Err: "no such host", IsNotFound: true}
)

func newScripted(source, control error) *scripted {
	return &scripted{errs: map[string]error{"x.test": source, "control.test": control}, count: map[string]int{}}
}

func (s *scripted) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	s.count[host]++
	err, wait := s.errs[host], s.waits
	s.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, &net.DNSError{Err: "i/o timeout", IsTimeout: true}
	}
	return []netip.Addr{netip.MustParseAddr(publicV4)}, err
}

func (s *scripted) lookups(host string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[host]
}

func (s *scripted) set(host string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs[host] = err
}

func (s *scripted) fetcher() *fetch.Fetcher {
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	return withControls(fetch.Network{Resolver: s, Dial: refuse}, "control.test")
}

// code returns the code of a download of x.test.
func code(t *testing.T, f *fetch.Fetcher) media.Code {
	t.Helper()
	_, err := f.Fetch(t.Context(), "http://x.test/", rules(), 100)
	failure := media.FailureOf(err)
	if failure == nil {
		t.Fatalf("got %v, want a failure", err)
	}
	return failure.Code
}

func testControlsFaultIsUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(errServer, errServer)
		f := s.fetcher()
		for range 3 {
			if got := code(t, f); got != media.ResolverUnavailable {
				t.Errorf("got %s", got)
			}
		}
		if got := s.lookups("control.test"); got != 1 {
			t.Errorf("%d lookups of the control name, want 1", got)
		}
		<-time.After(2 * time.Second)
		s.set("control.test", nil)
		if got := code(t, f); got != media.DNSFailed {
			t.Errorf("got %s after the result has expired", got)
		}
	})
}

func testControlsAnswerIsNotUsedForLaterLookups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(errServer, nil)
		f := s.fetcher()
		if got := code(t, f); got != media.DNSFailed {
			t.Errorf("got %s", got)
		}
		<-time.After(time.Millisecond)
		s.set("control.test", errServer) // the outage begins
		if got := code(t, f); got != media.ResolverUnavailable {
			t.Errorf("got %s: the answer was from before the outage", got)
		}
	})
}

func testControlsAreLookedUpOnceAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(errServer, nil)
		s.waits = time.Second
		f := s.fetcher()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if got := code(t, f); got != media.DNSFailed {
					t.Errorf("got %s", got)
				}
			})
		}
		all.Wait()
		if got := s.lookups("control.test"); got != 2 { // the download is repeated once after an answer
			t.Errorf("%d lookups of the control name for 20 sources with two lookups each, want 2", got)
		}
	})
}

// The lookup of the source has no answer, and that of the control name has one, because the resolver is back.
func testControlsOutageEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(errServer, nil)
		s.waits = time.Second
		f := s.fetcher()
		time.AfterFunc(1500*time.Millisecond, func() { s.set("x.test", nil) })
		if got := code(t, f); got != media.ConnectFailed {
			t.Errorf("got %s, want the result of the connection", got)
		}
	})
}

func testControlsCheckResolver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(nil, nil)
		f := s.fetcher()
		if err := f.CheckResolver(t.Context()); err != nil {
			t.Errorf("got %v", err)
		}
		<-time.After(time.Millisecond)
		s.set("control.test", errAbsent)
		if err := f.CheckResolver(t.Context()); err != nil {
			t.Errorf("no such name: got %v", err)
		}
		<-time.After(time.Millisecond)
		s.set("control.test", nil)
		s.waits = time.Hour
		start := time.Now()
		err := f.CheckResolver(t.Context())
		if err == nil || !strings.Contains(err.Error(), "1 of 1 control names") {
			t.Errorf("a silent resolver: got %v", err)
		}
		if elapsed := time.Since(start); elapsed != 2*time.Second {
			t.Errorf("the check lasted %s, want 2s", elapsed)
		}
	})
}
