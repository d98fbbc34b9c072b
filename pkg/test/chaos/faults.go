package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"vitrine.io/pkg/test/servers"
)

// node is a server that can be killed and paused.
type node interface {
	Kill() error
	Pause() error
	Resume() error
	Start() error
	Await(ctx context.Context) error
}

// nodes are the servers that are several.
func (s *System) nodes() []node {
	var all []node
	for _, n := range append(append([]*servers.Node{}, s.site.Redis...), s.site.Kafka...) {
		all = append(all, n)
	}
	return all
}

// breaker does what a schedule says.
type breaker struct {
	system *System
	began  time.Time

	mu       sync.Mutex
	log      io.Writer
	findings []Finding
}

// run carries the schedule out, and returns when all its faults are over.
func (b *breaker) run(ctx context.Context, schedule Schedule) {
	var all sync.WaitGroup
	for _, f := range schedule.Faults {
		all.Go(func() {
			if !pause(ctx, time.Until(b.began.Add(f.At))) {
				return
			}
			if err := b.inflict(ctx, f); err != nil {
				b.note("%s: %v", f, err)
				if !errors.Is(err, errNoTarget) {
					b.find("the harness can do what it wants", fmt.Sprintf("%s: %v", f, err))
				}
			}
		})
	}
	all.Wait()
}

func (b *breaker) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.log, "%6.2fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *breaker) find(rule, detail string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.findings = append(b.findings, Finding{rule, detail})
}

// errNoTarget says that there was nothing to hit just now.
var errNoTarget = errors.New("there is nothing to hit")

// inflict does one fault and ends it.
func (b *breaker) inflict(ctx context.Context, f Fault) error {
	b.note("%s", f)
	defer b.note("over: %s %s", f.Kind, f.Target)
	if target, ok := b.system.site.proxies[f.Target]; ok {
		return b.network(ctx, f, target)
	}
	if f.Kind == LoseCommits {
		return b.network(ctx, f, b.system.site.proxies["to postgres"])
	}
	if p, ok := b.system.programs[f.Target]; ok {
		return b.program(ctx, f, p)
	}
	n, err := b.node(ctx, f)
	if err != nil {
		return err
	}
	if f.Kind == Pause || f.Kind == PauseMaster {
		err := n.Pause()
		pause(ctx, f.For)
		return errors.Join(err, n.Resume())
	}
	err = n.Kill()
	pause(ctx, f.For)
	return errors.Join(err, n.Start())
}

func (b *breaker) network(ctx context.Context, f Fault, p *Proxy) error {
	switch f.Kind {
	case Cut:
		p.Cut()
		return nil
	case Down:
		p.Down()
	case Hold:
		p.Hold()
	case Delay:
		p.Delay(time.Duration(f.Amount) * time.Millisecond)
	case LoseCommits:
		before := p.Lost()
		p.LoseCommits(f.Amount)
		pause(ctx, f.For)
		p.LoseCommits(0)
		b.note("%d COMMITs were not answered", p.Lost()-before)
		return nil
	default:
		return fmt.Errorf("%q cannot be done to a network", f.Kind)
	}
	pause(ctx, f.For)
	p.Heal()
	return nil
}

func (b *breaker) program(ctx context.Context, f Fault, p *Program) error {
	switch f.Kind {
	case Kill:
		err := p.Kill()
		pause(ctx, f.For)
		return errors.Join(err, p.Start())
	case Stop:
		if err := p.Stop(); err != nil {
			b.find("a program that is told to stop ends in order", err.Error())
		}
		pause(ctx, f.For)
		return p.Start()
	case Pause:
		err := p.Pause()
		pause(ctx, f.For)
		return errors.Join(err, p.Resume())
	case KillCodec:
		if n := p.KillChildren(); n == 0 {
			return errNoTarget
		}
		return nil
	default:
		return fmt.Errorf("%q cannot be done to a program", f.Kind)
	}
}

// node finds the server that a fault is for.
func (b *breaker) node(ctx context.Context, f Fault) (node, error) {
	site := b.system.site
	name, number, _ := strings.Cut(f.Target, "-")
	i, _ := strconv.Atoi(number) // none is 0
	switch name {
	case "postgres":
		return site.Postgres, nil
	case "minio":
		return site.MinIO, nil
	case "broker":
		return site.Kafka[i], nil
	case "redis":
		if masters := site.Masters(ctx); i < len(masters) {
			return masters[i], nil
		}
		return nil, errNoTarget
	default:
		return nil, fmt.Errorf("there is no %s", f.Target)
	}
}
