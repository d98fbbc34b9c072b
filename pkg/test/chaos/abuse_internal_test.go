package main

import (
	"bytes"
	"net/http"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/test/client"
)

// newFaults returns a fault injector for a system whose only part is an API that always gives the same response.
func newFaults(t *testing.T) (*fakeAPI, *faultInjector) {
	t.Helper()
	f, c, history := newFakeAPI(t)
	backends := &Backends{}
	for i := range backends.egress {
		backends.egress[i] = &Proxy{Addr: "127.0.0.1:1"}
	}
	s := &System{backends: backends, apis: c.apis, programs: map[string]*Program{"api-0": {Name: "api-0", Admin: c.apis[0]}}}
	return f, &faultInjector{system: s, history: history, start: time.Now(), log: &bytes.Buffer{}}
}

func (b *faultInjector) rules() []string {
	var rules []string
	for _, f := range append(slices.Clone(b.findings), b.history.findings...) {
		rules = append(rules, f.Rule)
	}
	return rules
}

func TestFlood(t *testing.T) {
	t.Parallel()
	t.Run("accepted", func(t *testing.T) {
		t.Parallel()
		f, b := newFaults(t)
		f.respond(http.StatusCreated, client.Product{ID: 4, Version: 1})
		if err := b.flood(t.Context(), Fault{Kind: Flood, Amount: 2 * floodImages, For: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if n := len(b.history.expectations); n != 2 {
			t.Fatalf("%d products were posted, want 2", n)
		}
		for _, s := range b.history.expectations {
			if !s.Flood || !s.Accepted || len(s.Images) != floodImages || s.UserID != 4 {
				t.Errorf("got %+v", s)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		f, b := newFaults(t)
		c := newAPIUser(floodUser, 1, b.system.apis, "", b.history)
		t.Cleanup(c.client.Close)
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			s := c.expect("flood-0", nil)
			f.respond(status, map[string]string{"code": "overloaded"})
			f.wait.Store("2")
			if c.post(t.Context(), s); s.Accepted || len(b.rules()) > 0 {
				t.Errorf("%d: got %+v and the findings %q", status, s, b.rules())
			}
			f.wait.Store("")
			c.post(t.Context(), s)
			if got, want := b.rules(), []string{"a refusal has Retry-After"}; !slices.Equal(got, want) {
				t.Errorf("%d without Retry-After: got the findings %q, want %q", status, got, want)
			}
			b.history.findings = nil
		}
	})
}

func TestAbuseLists(t *testing.T) {
	t.Parallel()
	f, b := newFaults(t)
	a := &abuse{
		faultInjector: b, client: client.New("", client.Options{Timeout: clientTimeout}),
		lists: map[int]int{}, late: map[string][]string{},
	}
	t.Cleanup(a.client.Close)
	f.wait.Store("2")
	for _, row := range []struct {
		condition string
		status    int
		list      []string // findings of a list, and of a read
		read      []string
	}{
		{"ok", 200, nil, nil},
		{"too_expensive", 422, nil, []string{"a cached read succeeds while lists are abused"}},
		{"refused", 503, nil, []string{"a cached read succeeds while lists are abused"}},
		{"not_found", 404, []string{"an abused list is answered with 200, 422 or 503"},
			[]string{"a cached read succeeds while lists are abused"}},
	} {
		f.respond(row.status, nil)
		b.findings = nil
		if a.list(t.Context(), b.system.apis[0]); !slices.Equal(b.rules(), row.list) {
			t.Errorf("%s: got the findings %q of a list, want %q", row.condition, b.rules(), row.list)
		}
		b.findings = nil
		if a.read(t.Context(), b.system.apis[0]); !slices.Equal(b.rules(), row.read) {
			t.Errorf("%s: got the findings %q of a read, want %q", row.condition, b.rules(), row.read)
		}
	}
	b.findings = nil
	f.respond(http.StatusServiceUnavailable, map[string]string{"code": "timeout"})
	a.reads = lateShare - 1
	if a.read(t.Context(), b.system.apis[0]); len(b.rules()) > 0 {
		t.Errorf("one late read: got the findings %q", b.rules())
	}
	if a.checkLate(); len(b.rules()) > 0 {
		t.Errorf("one late read of %d: got the findings %q", a.reads, b.rules())
	}
	a.read(t.Context(), b.system.apis[0])
	a.checkLate()
	if got, want := b.rules(), []string{"a cached read succeeds while lists are abused"}; !slices.Equal(got, want) {
		t.Errorf("two late reads of %d: got the findings %q, want %q", a.reads, got, want)
	}
	b.findings = nil
	f.respond(http.StatusNotFound, nil)
	a.checkReady(t.Context(), b.system.programs["api-0"])
	f.respond(http.StatusOK, nil)
	a.checkReady(t.Context(), b.system.programs["api-0"])
	if got, want := b.rules(), []string{"programs stay ready while lists are abused"}; !slices.Equal(got, want) {
		t.Errorf("got the findings %q, want %q", got, want)
	}
}
