package devstack

import (
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// RedisConfig says where the stand-in for Redis listens.
type RedisConfig struct {
	Addr string // host:port; port 0 is any free one, empty is 127.0.0.1:0
}

// Redis is a cluster of one master in this process, in memory: a cache may lose everything, so nothing is kept over a
// restart.
type Redis struct {
	addr   string
	server *miniredis.Miniredis
	stop   chan struct{}
	once   sync.Once
	clock  sync.WaitGroup
}

// redisTick is how often keys grow older: miniredis does not do it by itself, and its way of doing it on each access walks
// all keys each time.
const redisTick = 100 * time.Millisecond

// StartRedis starts it. The caller closes it.
func StartRedis(cfg RedisConfig) (*Redis, error) {
	if cfg.Addr == "" {
		cfg.Addr = anyPort
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(cfg.Addr); err != nil {
		return nil, fmt.Errorf("start redis on %s: %w", cfg.Addr, err)
	}
	r := &Redis{addr: server.Addr(), server: server, stop: make(chan struct{})}
	r.clock.Go(r.age)
	return r, nil
}

// age lets the keys' time pass until Close.
func (r *Redis) age() {
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

// Addr returns host:port of the one node.
func (r *Redis) Addr() string { return r.addr }

// Close stops it and forgets everything. It may be called again.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		r.clock.Wait()
		r.server.Close()
	})
}
