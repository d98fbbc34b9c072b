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

// reply is what a name server says of a name.
type reply struct {
	addrs []string // of both kinds
	alias []string // the names on the way to the addresses, of which the first is the answer's own
	code  dnsmessage.RCode
	code6 dnsmessage.RCode // of the answer to AAAA
	mute  bool             // nothing is said
	noise bool             // something is said that is no answer
	spoof string           // an address that somebody else shouts first, who has not seen the question
}

// nameServer answers on a loopback port. What it says of a name changes with each look-up, up to the last reply; nothing may
// be kept, since every TTL is 0.
type nameServer struct {
	conn  *net.UDPConn
	mu    sync.Mutex
	zone  map[string][]reply // by name with its dot
	asked map[string]int     // questions by name and type
}

func newNameServer(t *testing.T, zone map[string][]reply) *nameServer {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, zone: zone, asked: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(t.Error) })
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return s
}

func (s *nameServer) serve(tell func(...any)) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if err := query.Unpack(buffer[:n]); err != nil || len(query.Questions) != 1 {
			tell("not a question", err)
			continue
		}
		for _, packet := range s.answer(query) {
			if _, err := s.conn.WriteToUDPAddrPort(packet, from); err != nil && !errors.Is(err, net.ErrClosed) {
				tell(err)
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

// next returns what is said of the name now.
func (s *nameServer) next(q dnsmessage.Question) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(q.Name.String())
	replies := s.zone[name]
	if len(replies) == 0 {
		return reply{code: dnsmessage.RCodeNameError}
	}
	already := s.asked[name+q.Type.String()] // a look-up asks for both kinds at once, in any order
	s.asked[name+q.Type.String()]++
	return replies[min(already, len(replies)-1)]
}

// throughDNS returns the real network but for two wires: its resolver asks s, and its dialler is w's.
func (w *world) throughDNS(t *testing.T, s *nameServer) fetch.Network {
	t.Helper()
	network := fetch.Internet()
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
		if err == nil { // the resolver would listen for its whole five seconds to a question that nobody waits for any more
			context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	network.Dial = w.Dial
	return network
}

func TestANameThatChangesItsAnswerGainsNothing(t *testing.T) {
	t.Parallel()
	for _, inside := range []string{"127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "64:ff9b::7f00:1"} {
		t.Run(inside, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.site(t, "", publicV4, "80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/back" { // to the same name, which means something else by now
					http.Redirect(rw, req, "/", http.StatusFound)
					return
				}
				_, _ = rw.Write([]byte("picture"))
			}))
			s := newNameServer(t, map[string][]reply{
				"rebind.test.": {{addrs: []string{publicV4}}, {addrs: []string{inside}}},
				"again.test.":  {{addrs: []string{publicV4}}, {addrs: []string{inside}}},
			})
			f := newFetcher(w.throughDNS(t, s), 1024)
			for i, want := range []media.Code{"", media.URLForbidden, media.URLForbidden} {
				got, err := f.Fetch(t.Context(), "http://rebind.test/", rules(), 100)
				if want != "" {
					failed(t, got.Body, err, want)
				} else if err != nil || string(got.Body) != "picture" {
					t.Fatalf("look-up %d: got %q, %v", i+1, got.Body, err)
				}
			}
			got, err := f.Fetch(t.Context(), "http://again.test/back", rules(), 100)
			failed(t, got.Body, err, media.URLForbidden)
			if got, want := w.dials(), []string{firstAt, firstAt}; !slices.Equal(got, want) {
				t.Errorf("dialled %v, want %v: what was checked, and nothing else", got, want)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for question, times := range map[string]int{"rebind.test.TypeA": 3, "again.test.TypeAAAA": 2} {
				if got := s.asked[question]; got != times {
					t.Errorf("%s was asked for %d times, want %d", question, got, times)
				}
			}
		})
	}
}

func TestWhateverAServerSaysOnlyThePublicIsDialled(t *testing.T) {
	t.Parallel()
	const v6At = "[" + publicV6 + "]:80"
	cases := map[string]struct {
		reply   reply
		want    media.Code
		dialled []string // in any order
	}{
		"one":              {reply{addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt}},
		"several":          {reply{addrs: []string{publicV4, otherV4}}, media.ConnectFailed, []string{otherAt, firstAt}},
		"of both kinds":    {reply{addrs: []string{publicV4, publicV6}}, media.ConnectFailed, []string{v6At, firstAt}},
		"some inside":      {reply{addrs: []string{"10.0.0.1", publicV4, "::1"}}, media.ConnectFailed, []string{firstAt}},
		"only six outside": {reply{addrs: []string{"127.0.0.1", publicV6}}, media.ConnectFailed, []string{v6At}},
		"all inside":       {reply{addrs: []string{"10.0.0.1", "127.0.0.1", "::1", "fe80::1"}}, media.URLForbidden, nil},
		"mapped":           {reply{addrs: []string{"::ffff:127.0.0.1"}}, media.URLForbidden, nil},
		"NAT64":            {reply{addrs: []string{"64:ff9b::a9fe:a9fe"}}, media.URLForbidden, nil},
		"6to4":             {reply{addrs: []string{"2002:a9fe:a9fe::1"}}, media.URLForbidden, nil},
		"alias outside": {
			reply{alias: []string{"cdn.test."}, addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt},
		},
		"alias inside": {
			reply{alias: []string{"inside.test."}, addrs: []string{"169.254.169.254"}}, media.URLForbidden, nil,
		},
		"aliases inside": {
			reply{alias: []string{"a.test.", "localhost."}, addrs: []string{"127.0.0.1"}}, media.URLForbidden, nil,
		},
		"alias of nothing":      {reply{alias: []string{"nowhere.test."}}, media.DNSFailed, nil},
		"no such name":          {reply{code: dnsmessage.RCodeNameError}, media.DNSFailed, nil},
		"no address":            {reply{}, media.DNSFailed, nil},
		"a server's fault":      {reply{code: dnsmessage.RCodeServerFailure}, media.DNSFailed, nil},
		"refused":               {reply{code: dnsmessage.RCodeRefused}, media.DNSFailed, nil},
		"silence":               {reply{mute: true}, media.DNSFailed, nil},
		"noise":                 {reply{noise: true}, media.DNSFailed, nil},
		"somebody else shouted": {reply{spoof: otherV4, addrs: []string{publicV4}}, media.ConnectFailed, []string{firstAt}},
		"half a fault": {
			reply{addrs: []string{publicV4}, code6: dnsmessage.RCodeServerFailure}, media.ConnectFailed, []string{firstAt},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, w := newNameServer(t, map[string][]reply{"x.test.": {c.reply}}), newWorld()
			r := rules()
			if c.reply.mute || c.reply.noise {
				r.ConnectTimeout = r.ConnectTimeout / 50 // nothing will ever come
			}
			got, err := newFetcher(w.throughDNS(t, s), 1024).Fetch(t.Context(), "http://x.test/", r, 100)
			failed(t, got.Body, err, c.want)
			dials := w.dials()
			slices.Sort(dials)
			slices.Sort(c.dialled)
			if !slices.Equal(dials, c.dialled) {
				t.Errorf("dialled %v, want %v", dials, c.dialled)
			}
		})
	}
}

func TestWhoGivesUpLookingUpGetsItsOwnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s, w := newNameServer(t, map[string][]reply{"x.test.": {{mute: true}}}), newWorld()
	_, err := newFetcher(w.throughDNS(t, s), 1024).Fetch(ctx, "http://x.test/", rules(), 100)
	if err != context.DeadlineExceeded { //nolint:errorlint // exactly as it is
		t.Errorf("got %v, want context.DeadlineExceeded as it is", err)
	}
}
