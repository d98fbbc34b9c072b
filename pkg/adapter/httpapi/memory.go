package httpapi

import (
	"math"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// Shares of the process' memory limit. With 512 MiB these are 2,048 connections of 32 KiB and 128 MiB in flight; the rest is
// for the pools of connections to servers, for decoded values, and for garbage.
const (
	connectionShare  = 8        // connections may need an eighth
	bytesShare       = 4        // bodies and responses may need a quarter
	connectionMemory = 32 << 10 // bytes: buffers of 16 KiB and 4 KiB, the request's values, and a goroutine
	smallBytes       = 16 << 10 // smaller bodies and responses are part of their connection's memory

	minConnections, maxConnections = 64, 16_384
	minBytesInFlight               = 16 << 20
	defaultMemory                  = 4 << 30 // bytes, if the process has no limit
)

// memoryLimit returns the memory limit of the process in bytes, which GOMEMLIMIT sets.
func memoryLimit() int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit
	}
	return defaultMemory
}

// connections returns MaxConnections or, if it is 0, what fits into a share of a memory limit.
func (c Config) connections(limit int64) int {
	if c.MaxConnections > 0 {
		return c.MaxConnections
	}
	return int(min(max(limit/connectionShare/connectionMemory, minConnections), maxConnections))
}

// bytesInFlight returns MaxBytesInFlight or, if it is 0, a share of a memory limit.
func (c Config) bytesInFlight(limit int64) int64 {
	if c.MaxBytesInFlight > 0 {
		return c.MaxBytesInFlight
	}
	return max(limit/bytesShare, minBytesInFlight, int64(c.ClientShare)*int64(max(c.BodyLimit, pageMemory)))
}

// memory bounds the bytes of large bodies and responses that are held at a time, in all and for each client. It is safe for
// concurrent use.
type memory struct {
	total, perClient int64
	metrics          *metrics

	mu      sync.Mutex
	used    int64
	clients map[netip.Addr]int64
}

func newMemory(total int64, share int, m *metrics) *memory {
	return &memory{total: total, perClient: total / int64(share), metrics: m, clients: map[netip.Addr]int64{}}
}

// acquire reserves n bytes for a client, if the limits allow it or force is set.
func (m *memory) acquire(client netip.Addr, n int64, force bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !force && (m.used+n > m.total || m.clients[client]+n > m.perClient) {
		return false
	}
	m.used += n
	m.clients[client] += n
	m.metrics.bytesInFlight.Set(float64(m.used))
	return true
}

func (m *memory) release(client netip.Addr, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
	if m.clients[client] -= n; m.clients[client] == 0 {
		delete(m.clients, client)
	}
	m.metrics.bytesInFlight.Set(float64(m.used))
}

// reserve reserves n bytes for the request until its response is written. It returns errOverloaded if the limits do not
// allow it and force is not set. A request without a connection, as in benchmarks, has no limit.
func (s *Server) reserve(ctx *fasthttp.RequestCtx, n int64, force bool) error {
	c, ok := ctx.Conn().(*conn)
	if !ok {
		return nil
	}
	client := s.proxies.client(c.peer, string(ctx.Request.Header.Peek(fiber.HeaderXForwardedFor)))
	if !s.memory.acquire(client, n, force) {
		s.metrics.shed.WithLabelValues(shedBytes).Inc()
		return errOverloaded
	}
	c.addReservation(s.memory, reservation{client, n})
	return nil
}

// proxies are the networks of the proxies whose X-Forwarded-For is believed.
type proxies []netip.Prefix

func (p proxies) contain(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// client returns the address of the client: the last one of peer and X-Forwarded-For, from the right, that is no proxy's.
func (p proxies) client(peer netip.Addr, forwardedFor string) netip.Addr {
	hops := strings.Split(forwardedFor, ",")
	for i := len(hops) - 1; i >= 0 && p.contain(peer); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		peer = hop.Unmap()
	}
	return peer
}
