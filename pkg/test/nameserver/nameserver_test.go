package nameserver_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"vitrine.io/pkg/test/nameserver"
)

func TestServer(t *testing.T) {
	t.Parallel()
	s, err := nameserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.Addr)
	}}
	timeout := time.Minute
	lookUp := func(name string) *net.DNSError {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		addrs, err := resolver.LookupNetIP(ctx, "ip", name)
		var failure *net.DNSError
		if !errors.As(err, &failure) && (err != nil || len(addrs) != 1 || addrs[0].Unmap().String() != "127.0.0.1") {
			t.Errorf("%s: got %v, %v", name, addrs, err)
		}
		return failure
	}
	if f := lookUp("x.test."); f != nil {
		t.Errorf("got %v", f)
	}
	if f := lookUp("x.absent.test."); f == nil || !f.IsNotFound {
		t.Errorf("an absent name: got %v", f)
	}
	s.SetMode(nameserver.Fails)
	if f := lookUp("x.test."); f == nil || f.IsNotFound || f.IsTimeout {
		t.Errorf("SERVFAIL: got %v", f)
	}
	s.SetMode(nameserver.Silent)
	timeout = 200 * time.Millisecond
	if f := lookUp("x.test."); f == nil || !f.IsTimeout {
		t.Errorf("silence: got %v", f)
	}
	s.SetMode(nameserver.Answers)
	timeout = time.Minute
	if f := lookUp("x.test."); f != nil {
		t.Errorf("got %v after the end", f)
	}
}
