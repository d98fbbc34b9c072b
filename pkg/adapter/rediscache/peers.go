package rediscache

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Peers lets the instances of one program tell each other, in Redis, that the database answers them. It is one key for each
// program and installation: the name of the instance that wrote it last. An instance that the database does not answer does
// not write, so after a moment it reads the name of another one, if the database answers any.
//
// Programs have a key each. If no instance of the API reached the database, the fact that workers reach it must not take all
// instances of the API out of service.
type Peers struct {
	cache        *Cache
	program      string
	instance     string
	installation func() string
	ttl          time.Duration
}

// Peers returns the peers of an instance of a program. installation names the installation and its epoch; until it returns a
// name, nothing is announced. An announcement is valid for ttl.
func (c *Cache) Peers(program, instance string, installation func() string, ttl time.Duration) *Peers {
	return &Peers{cache: c, program: program, instance: instance, installation: installation, ttl: ttl}
}

func (p *Peers) key(installation string) string {
	return p.cache.cfg.KeyPrefix + "up:" + p.program + ":" + installation
}

// Announce writes this instance's name.
func (p *Peers) Announce(ctx context.Context) error {
	installation := p.installation()
	if installation == "" {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, p.cache.cfg.Timeout)
	defer cancel()
	if err := p.cache.client.Set(bounded, p.key(installation), p.instance, p.ttl).Err(); err != nil {
		return unavailable(ctx, "announce", err)
	}
	return nil
}

// Announced reports whether the last announcement is valid and another instance's.
func (p *Peers) Announced(ctx context.Context) (bool, error) {
	installation := p.installation()
	if installation == "" {
		return false, nil
	}
	bounded, cancel := context.WithTimeout(ctx, p.cache.cfg.Timeout)
	defer cancel()
	name, err := p.cache.client.Get(bounded, p.key(installation)).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return false, nil
	case err != nil:
		return false, unavailable(ctx, "read announcement", err)
	default:
		return name != p.instance, nil
	}
}
