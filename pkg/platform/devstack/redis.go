package devstack

import (
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// RedisConfig configures the stand-in for Redis.
type RedisConfig struct {
	Addr string // host:port; port 0 is any free one, empty is 127.0.0.1:0
}

// Redis is a cluster of one master in this process. It is in memory only: a cache may lose its keys, so they do not
// survive a restart.
type Redis struct {
	addr   string
	server *miniredis.Miniredis
	stop   chan struct{}
	once   sync.Once
	clock  sync.WaitGroup
}

// redisTick is the interval at which the time of the keys advances: miniredis does not expire keys by itself, and its option
// to expire them on each access walks all keys each time.
const redisTick = 100 * time.Millisecond

// StartRedis starts the server. The caller closes it.
func StartRedis(cfg RedisConfig) (*Redis, error) {
	if cfg.Addr == "" {
		cfg.Addr = anyPort
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(cfg.Addr); err != nil {
		return nil, fmt.Errorf("start redis on %s: %w", cfg.Addr, err)
	}
	r := &Redis{addr: server.Addr(), server: server, stop: make(chan struct{})}
	r.clock.Go(r.advance)
	return r, nil
}

// advance advances the time of the keys until Close.
func (r *Redis) advance() {
	ticker := time.NewTicker(redisTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return
		case now := <-ticker.C:
			r.server.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Addr returns the address of the node, host:port.
func (r *Redis) Addr() string { return r.addr }

// Close stops the server and drops all keys. A second call does nothing.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		r.clock.Wait()
		r.server.Close()
	})
}
