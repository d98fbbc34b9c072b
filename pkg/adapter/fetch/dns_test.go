package fetch_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/foundation/media"
)

// reply is the answer of a name server for a name.
type reply struct {
	addrs []string // IPv4 and IPv6
	alias []string // the targets of the CNAME records, in their order
	code  dnsmessage.RCode
	code6 dnsmessage.RCode // of the answer to AAAA
	mute  bool             // no answer
	noise bool             // packets that are no DNS messages
	spoof string           // the address in a forged answer with a wrong id, sent first
}

// nameServer answers on a loopback port. Each lookup of a name gets its next reply, up to the last one. Every TTL is 0.
type nameServer struct {
	conn  *net.UDPConn
	mu    sync.Mutex
	zone  map[string][]reply // by name with its dot
	count map[string]int     // of questions, by name and type
}

func newNameServer(t *testing.T, zone map[string][]reply) *nameServer {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, zone: zone, count: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(t.Error) })
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return s
}

func (s *nameServer) serve(report func(...any)) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if err := query.Unpack(buffer[:n]); err != nil || len(query.Questions) != 1 {
			report("not a question", err)
			continue
		}
		for _, packet := range s.answer(query) {
			if _, err := s.conn.WriteToUDPAddrPort(packet, from); err != nil && !errors.Is(err, net.ErrClosed) {
				report(err)
			}
		}
	}
}

// answer returns the packets that answer a question.
func (s *nameServer) answer(query dnsmessage.Message) [][]byte {
	q := query.Questions[0]
	r := s.next(q)
	switch {
	case r.mute:
		return nil
	case r.noise:
		return [][]byte{[]byte("noise"), {}}
	}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: query.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: r.code,
		},
		Questions: query.Questions,
	}
	if q.Type == dnsmessage.TypeAAAA && r.code6 != 0 {
		m.RCode = r.code6
		r.addrs = nil
	}
	owner := q.Name
	for _, alias := range r.alias {
		next := dnsmessage.MustNewName(alias)
		m.Answers = append(m.Answers, record(owner, &dnsmessage.CNAMEResource{CNAME: next}))
		owner = next
	}
	for _, text := range r.addrs {
		if addr := netip.MustParseAddr(text); addr.Is4() && q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, record(owner, &dnsmessage.AResource{A: addr.As4()}))
		} else if addr.Is6() && q.Type == dnsmessage.TypeAAAA {
			m.Answers = append(m.Answers, record(owner, &dnsmessage.AAAAResource{AAAA: addr.As16()}))
		}
	}
	packets := [][]byte{packed(m)}
	if r.spoof != "" {
		m.ID++
		m.Answers = []dnsmessage.Resource{record(q.Name, &dnsmessage.AResource{A: netip.MustParseAddr(r.spoof).As4()})}
		packets = [][]byte{packed(m), packets[0]}
	}
	return packets
}

func record(owner dnsmessage.Name, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 0}, Body: body}
}

func packed(m dnsmessage.Message) []byte {
	packet, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return packet
}

// next returns the current reply for the name.
func (s *nameServer) next(q dnsmessage.Question) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(q.Name.String())
	replies := s.zone[name]
	if len(replies) == 0 {
		return reply{code: dnsmessage.RCodeNameError}
	}
	earlier := s.count[name+q.Type.String()] // a lookup sends questions for A and AAAA, in any order
	s.count[name+q.Type.String()]++
	return replies[min(earlier, len(replies)-1)]
}

// throughDNS returns the real network, except that its resolver uses s, and its dialler is that of fake.
func (fake *fakeNet) throughDNS(t *testing.T, s *nameServer) fetch.Network {
	t.Helper()
	network := fetch.Internet("")
	resolver, ok := network.Resolver.(*net.Resolver)
	if !ok {
		t.Fatalf("the resolver is a %T", network.Resolver)
	}
	resolver.PreferGo = true
	resolver.Dial = func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		if !strings.HasPrefix(protocol, "udp") {
			return nil, errors.New("only UDP")
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", s.conn.LocalAddr().String())
		if err == nil { // the resolver would read for its five seconds, even after the end of ctx
			context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	network.Dial = fake.Dial
	return network
}

func TestDNS(t *testing.T) {
	t.Parallel()
	t.Run("changed_answer_is_checked", testDNSChangedAnswerIsChecked)
	t.Run("only_public_answers_are_dialled", testDNSOnlyPublicAnswersAreDialled)
	t.Run("cancelled_lookup_returns_context_error", testDNSCancelledLookupReturnsContextError)
}

func testDNSChangedAnswerIsChecked(t *testing.T) {
	t.Parallel()
	for _, inside := range []string{"127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "64:ff9b::7f00:1"} {
		t.Run(inside, func(t *testing.T) {
			t.Parallel()
			fake := newFakeNet()
			fake.site(t, "", publicV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/back" { // to the same name, which now resolves to another address
					http.Redirect(rw, req, "/", http.StatusFound)
					return
				}
				_, _ = rw.Write([]byte("content"))
			}))
			s := newNameServer(t, map[string][]reply{
				"rebind.test.":   {{addrs: []string{publicV4}}, {addrs: []string{inside}}},
				"redirect.test.": {{addrs: []string{publicV4}}, {addrs: []string{inside}}},
			})
			f := newFetcher(fake.throughDNS(t, s), 1024)
			for i, want := range []media.Code{"", media.URLForbidden, media.URLForbidden} {
				got, err := f.Fetch(t.Context(), "http://rebind.test/", rules(), 100)
				if want != "" {
					failed(t, got.Body, err, want)
				} else if err != nil || string(got.Body) != "content" {
					t.Fatalf("lookup %d: got %q, %v", i+1, got.Body, err)
				}
			}
			got, err := f.Fetch(t.Context(), "http://redirect.test/back", rules(), 100)
			failed(t, got.Body, err, media.URLForbidden)
			if got, want := fake.dials(), []string{firstAt, firstAt}; !slices.Equal(got, want) {
				t.Errorf("dialled %v, want %v: only the checked addresses", got, want)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for question, want := range map[string]int{"rebind.test.TypeA": 3, "redirect.test.TypeAAAA": 2} {
				if got := s.count[question]; got != want {
					t.Errorf("%s: got %d questions, want %d", question, got, want)
				}
			}
		})
	}
}

func testDNSOnlyPublicAnswersAreDialled(t *testing.T) {
	t.Parallel()
	const v6At = "[" + publicV6 + "]:80"
	cases := map[string]struct {
		reply   reply
		want    media.Code
		dialled []string // in any order
	}{
		"one":              {reply{addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt}},
		"several":          {reply{addrs: []string{publicV4, otherV4}}, media.ConnectFailed, []string{otherAt, firstAt}},
		"ipv4_and_ipv6":    {reply{addrs: []string{publicV4, publicV6}}, media.ConnectFailed, []string{v6At, firstAt}},
		"some_forbidden":   {reply{addrs: []string{"10.0.0.1", publicV4, "::1"}}, media.ConnectFailed, []string{firstAt}},
		"only_ipv6_public": {reply{addrs: []string{"127.0.0.1", publicV6}}, media.ConnectFailed, []string{v6At}},
		"all_forbidden":    {reply{addrs: []string{"10.0.0.1", "127.0.0.1", "::1", "fe80::1"}}, media.URLForbidden, nil},
		"mapped":           {reply{addrs: []string{"::ffff:127.0.0.1"}}, media.URLForbidden, nil},
		"nat64":            {reply{addrs: []string{"64:ff9b::a9fe:a9fe"}}, media.URLForbidden, nil},
		"6to4":             {reply{addrs: []string{"2002:a9fe:a9fe::1"}}, media.URLForbidden, nil},
		"public_alias": {
			reply{alias: []string{"cdn.test."}, addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt},
		},
		"forbidden_alias": {
			reply{alias: []string{"inside.test."}, addrs: []string{"169.254.169.254"}}, media.URLForbidden, nil,
		},
		"forbidden_aliases": {
			reply{alias: []string{"a.test.", "localhost."}, addrs: []string{"127.0.0.1"}}, media.URLForbidden, nil,
		},
		"alias_of_nothing": {reply{alias: []string{"nowhere.test."}}, media.DNSFailed, nil},
		"no_such_name":     {reply{code: dnsmessage.RCodeNameError}, media.DNSFailed, nil},
		"no_address":       {reply{}, media.DNSFailed, nil},
		"server_failure":   {reply{code: dnsmessage.RCodeServerFailure}, media.DNSFailed, nil},
		"refused":          {reply{code: dnsmessage.RCodeRefused}, media.DNSFailed, nil},
		"silence":          {reply{mute: true}, media.DNSFailed, nil},
		"noise":            {reply{noise: true}, media.DNSFailed, nil},
		"forged_answer":    {reply{spoof: otherV4, addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt}},
		"server_failure_for_aaaa": {
			reply{addrs: []string{publicV4}, code6: dnsmessage.RCodeServerFailure}, media.ConnectFailed, []string{firstAt},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, fake := newNameServer(t, map[string][]reply{"x.test.": {c.reply}}), newFakeNet()
			r := rules()
			if c.reply.mute || c.reply.noise {
				r.ConnectTimeout = r.ConnectTimeout / 50 // no answer will arrive
			}
			got, err := newFetcher(fake.throughDNS(t, s), 1024).Fetch(t.Context(), "http://x.test/", r, 100)
			failed(t, got.Body, err, c.want)
			dials := fake.dials()
			slices.Sort(dials)
			slices.Sort(c.dialled)
			if !slices.Equal(dials, c.dialled) {
				t.Errorf("dialled %v, want %v", dials, c.dialled)
			}
		})
	}
}

func testDNSCancelledLookupReturnsContextError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s, fake := newNameServer(t, map[string][]reply{"x.test.": {{mute: true}}}), newFakeNet()
	_, err := newFetcher(fake.throughDNS(t, s), 1024).Fetch(ctx, "http://x.test/", rules(), 100)
	if err != context.DeadlineExceeded { //nolint:errorlint // it has to be unchanged
		t.Errorf("got %v, want context.DeadlineExceeded unchanged", err)
	}
}
