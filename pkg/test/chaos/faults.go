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

	"vitrine.io/pkg/test/nameserver"
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

// nodes returns the nodes of the replicated servers.
func (s *System) nodes() []node {
	var all []node
	for _, n := range append(append([]*servers.Node{}, s.backends.Redis...), s.backends.Kafka...) {
		all = append(all, n)
	}
	return all
}

// faultInjector injects the faults of a schedule.
type faultInjector struct {
	system  *System
	seed    uint64
	history *History
	start   time.Time

	mu       sync.Mutex
	log      io.Writer
	findings []Finding
	outages  []Outage
}

// run injects the faults of the schedule, and returns when all of them have ended.
func (b *faultInjector) run(ctx context.Context, schedule Schedule) {
	var faults sync.WaitGroup
	for _, f := range schedule.Faults {
		faults.Go(func() {
			if !sleep(ctx, time.Until(b.start.Add(f.At))) {
				return
			}
			if err := b.inject(ctx, f); err != nil {
				b.logf("%s: %v", f, err)
				if !errors.Is(err, errNoTarget) {
					b.addFinding("faults can be injected", fmt.Sprintf("%s: %v", f, err))
				}
			}
		})
	}
	faults.Wait()
}

func (b *faultInjector) logf(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.log, "%6.2fs  %s\n", time.Since(b.start).Seconds(), fmt.Sprintf(format, args...))
}

func (b *faultInjector) addFinding(rule, detail string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.findings = append(b.findings, Finding{rule, detail})
}

// errNoTarget means that the target of a fault does not exist at the moment.
var errNoTarget = errors.New("no target")

// inject starts one fault and ends it after its duration.
func (b *faultInjector) inject(ctx context.Context, f Fault) error {
	b.logf("%s", f)
	defer b.logf("end: %s %s", f.Kind, f.Target)
	if target := b.system.backends.proxiesOf(f.Target); target != nil {
		return b.network(ctx, f, target)
	}
	switch f.Kind {
	case ResolverAway, EgressAway:
		return b.outage(ctx, f)
	case LoseCommits:
		return b.loseCommits(ctx, f)
	case Promote:
		return b.promote(ctx, f)
	case Flood:
		return b.flood(ctx, f)
	case AbuseLists:
		return b.abuseLists(ctx, f)
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
		sleep(ctx, f.For)
		return errors.Join(err, n.Resume())
	}
	err = n.Kill()
	sleep(ctx, f.For)
	return errors.Join(err, n.Start())
}

func (b *faultInjector) network(ctx context.Context, f Fault, proxies []*Proxy) error {
	for _, p := range proxies {
		switch f.Kind {
		case Cut:
			p.Cut()
		case Down:
			p.Down()
		case Hold:
			p.Hold()
		case Delay:
			p.Delay(time.Duration(f.Amount) * time.Millisecond)
		default:
			return fmt.Errorf("%q is not a fault of a network", f.Kind)
		}
	}
	if f.Kind == Cut {
		return nil
	}
	sleep(ctx, f.For)
	for _, p := range proxies {
		p.Heal()
	}
	return nil
}

func (b *faultInjector) loseCommits(ctx context.Context, f Fault) error {
	backends := b.system.backends
	before := backends.commitsLost()
	for _, p := range backends.proxiesOf("to postgres") {
		p.LoseCommits(f.Amount)
	}
	sleep(ctx, f.For)
	for _, p := range backends.proxiesOf("to postgres") {
		p.LoseCommits(0)
	}
	b.logf("the replies to %d COMMITs were lost", backends.commitsLost()-before)
	return nil
}

// promote takes the primary away and promotes its standby. If the standby is cut off first, commits wait until the primary
// is killed, and the standby lacks all of them. A primary that has just restarted may show commits that the standby lacks,
// so promote waits until it has them.
func (b *faultInjector) promote(ctx context.Context, f Fault) error {
	d := b.system.database
	caughtUp, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	err := d.pair.AwaitSync(caughtUp)
	if err != nil {
		return fmt.Errorf("wait for the standby: %w", err)
	}
	switch f.Target {
	case primaryStopped:
		err = d.pair.Primary.Stop()
		sleep(ctx, f.For)
	case primaryKilled:
		err = d.pair.Primary.Kill()
		sleep(ctx, f.For)
	case standbyCutOff:
		b.system.backends.replication.Down()
		sleep(ctx, f.For)
		err = d.pair.Primary.Kill()
	default:
		err = fmt.Errorf("%q is no way to lose a primary", f.Target)
	}
	if err != nil {
		return err
	}
	return d.promote(ctx)
}

// outage takes the resolver or egress away. A worker tells an outage of egress from dead sources only if it knows good hosts
// of three users, so there is no outage before.
func (b *faultInjector) outage(ctx context.Context, f Fault) error {
	if f.Kind == EgressAway {
		if users, err := b.system.readyUsers(ctx); err != nil || users < 3 {
			return fmt.Errorf("%w: %d users have an image", errNoTarget, users)
		}
	}
	began := time.Now()
	switch {
	case f.Kind == EgressAway:
		for _, p := range b.system.backends.egress {
			if f.Target == noPackets {
				p.Hold()
			} else {
				p.Down()
			}
		}
	case f.Target == noAnswers:
		b.system.backends.Names.SetMode(nameserver.Silent)
	default:
		b.system.backends.Names.SetMode(nameserver.Fails)
	}
	sleep(ctx, f.For)
	b.mu.Lock()
	b.outages = append(b.outages, Outage{f.Kind, began, time.Now()})
	b.mu.Unlock()
	if f.Kind == EgressAway {
		for _, p := range b.system.backends.egress {
			p.Heal()
		}
	} else {
		b.system.backends.Names.SetMode(nameserver.Answers)
	}
	return nil
}

func (b *faultInjector) program(ctx context.Context, f Fault, p *Program) error {
	switch f.Kind {
	case Kill:
		err := p.Kill()
		sleep(ctx, f.For)
		return errors.Join(err, p.Start())
	case Stop:
		if err := p.Stop(); err != nil {
			b.addFinding("programs stop cleanly on SIGTERM", err.Error())
		}
		sleep(ctx, f.For)
		return p.Start()
	case Pause:
		err := p.Pause()
		sleep(ctx, f.For)
		return errors.Join(err, p.Resume())
	case KillCodec:
		if n := p.KillChildren(); n == 0 {
			return errNoTarget
		}
		return nil
	default:
		return fmt.Errorf("%q is not a fault of a program", f.Kind)
	}
}

// node returns the server that is the target of a fault. errNoTarget: the Redis Cluster has no such master now.
func (b *faultInjector) node(ctx context.Context, f Fault) (node, error) {
	backends := b.system.backends
	name, number, _ := strings.Cut(f.Target, "-")
	i, _ := strconv.Atoi(number) // "" gives 0
	switch name {
	case "postgres":
		return b.system.database.server(), nil
	case "minio":
		return backends.MinIO, nil
	case "broker":
		return backends.Kafka[i], nil
	case "redis":
		if masters := backends.Masters(ctx); i < len(masters) {
			return masters[i], nil
		}
		return nil, errNoTarget
	default:
		return nil, fmt.Errorf("unknown target %s", f.Target)
	}
}
