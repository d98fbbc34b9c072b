package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// input is the standard input of a load: closing it ends the load.
type input struct {
	from *io.PipeReader
	to   *io.PipeWriter
}

func newInput() *input {
	from, to := io.Pipe()
	return &input{from, to}
}

// reader is what a command reads; nil has none.
func (i *input) reader() io.Reader {
	if i == nil {
		return nil
	}
	return i.from
}

// How long a load goes on before and after what is done to it.
const (
	loadBefore = 5 * time.Second
	loadAfter  = 10 * time.Second
)

// underLoad does something while a client sends requests all the time, and returns what the client tells.
func (s *harness) underLoad(ctx context.Context, do func(context.Context) error) (tally, error) {
	type result struct {
		tally tally
		err   error
	}
	in := newInput()
	ended := make(chan result, 1)
	go func() {
		t, err := s.client(ctx, in, "load", "-api", s.api(), "-pictures", "2", "-wait", "12m")
		in.from.Close() //nolint:errcheck // nobody writes
		ended <- result{t, err}
	}()
	err := pause(ctx, loadBefore)
	if err == nil {
		err = do(ctx)
	}
	if err == nil {
		err = pause(ctx, loadAfter)
	}
	in.to.Close() //nolint:errcheck // it returns none
	r := <-ended
	return r.tally, errors.Join(err, r.err)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// blow is pods that are killed at once.
type blow struct {
	name      string
	component string
	all       bool   // of its pods, not only the first
	container string // whose process crashes, instead of its pod being killed
}

// checkHealing upgrades the programs under load, and then kills pods of each kind.
func (s *harness) checkHealing(ctx context.Context) (seen, error) {
	t, err := s.underLoad(ctx, func(ctx context.Context) error {
		stamp := fmt.Sprintf("at-%d", s.sys.now().Unix())
		return s.deploy(ctx, "--set", "api.podAnnotations.e2e="+stamp, "--set", "worker.podAnnotations.e2e="+stamp)
	})
	if err == nil {
		err = t.checkAll()
	}
	if err != nil {
		return seen{}, fmt.Errorf("rolling upgrade: %w", err)
	}
	s.say("rolling upgrade: %d requests, none failed", t.Requests)
	lines := []string{fmt.Sprintf("rolling upgrade of api and worker: %d requests, none failed, %d pictures ready",
		t.Requests, t.Ready)}
	for _, b := range []blow{
		{name: "an api process", component: "api", container: "api"},
		{name: "all worker processes", component: "worker", container: "worker", all: true},
		{name: "an api pod", component: "api"},
		{name: "all workers", component: "worker", all: true},
		{name: "a Redis pod", component: "redis"},
		{name: "Kafka", component: "kafka", all: true},
		{name: "Postgres", component: "postgres", all: true},
		{name: "all of Redis", component: "redis", all: true},
	} {
		line, err := s.strike(ctx, b)
		if err != nil {
			return seen{}, fmt.Errorf("kill %s: %w", b.name, err)
		}
		s.say("%s", line)
		lines = append(lines, line)
	}
	return seen{line: strings.Join(lines, "; ")}, nil
}

// strike kills pods under load and waits until the release is whole and serves again.
func (s *harness) strike(ctx context.Context, b blow) (string, error) {
	var took time.Duration
	t, err := s.underLoad(ctx, func(ctx context.Context) error {
		before, err := s.pods(ctx, b.component)
		if err != nil {
			return err
		}
		if len(before) == 0 {
			return errors.New("there is none")
		}
		victims, wanted := before, len(before)
		if !b.all {
			victims = before[:1]
		}
		if b.component == "worker" {
			wanted = 1 // KEDA says how many
		}
		began := s.sys.now()
		if err := s.hit(ctx, b, victims); err != nil {
			return err
		}
		err = until(ctx, "the pods", 6*time.Minute, time.Second, func(ctx context.Context) error {
			return s.replaced(ctx, b, victims, wanted)
		})
		if err != nil {
			return err
		}
		if err := s.serves(ctx); err != nil {
			return err
		}
		took = s.sys.now().Sub(began)
		return nil
	})
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s killed: whole after %.0f s, %d of %d requests refused, all %d accepted pictures ready",
		b.name, took.Seconds(), t.Refused, t.Requests, t.Ready), nil
}

// hit kills the victims, or crashes a process in each.
func (s *harness) hit(ctx context.Context, b blow, victims []pod) error {
	if b.container == "" {
		return s.kube.kill(ctx, victims)
	}
	for _, v := range victims {
		if err := s.kube.crash(ctx, v, b.container, s.options.helper); err != nil {
			return err
		}
	}
	return nil
}

// replaced is nil when the release is whole without the victims, or with the victims started again.
func (s *harness) replaced(ctx context.Context, b blow, victims []pod, wanted int) error {
	now, err := s.pods(ctx, b.component)
	if err != nil {
		return err
	}
	for _, p := range now {
		for _, v := range victims {
			if p.Metadata.UID == v.Metadata.UID && p.restarts() == v.restarts() {
				return fmt.Errorf("pod %s is still there", v.Metadata.Name)
			}
		}
	}
	if n := countReady(now); n < wanted {
		return fmt.Errorf("%d of %d pods of %s are ready", n, wanted, b.component)
	}
	return s.whole(ctx)
}

// serves waits until a product is accepted and its picture made, and the cache answers.
func (s *harness) serves(ctx context.Context) error {
	hits := -1.0
	return until(ctx, "a product", 5*time.Minute, 2*time.Second, func(ctx context.Context) error {
		if _, err := s.burst(ctx, "-wait", "1m"); err != nil {
			return err
		}
		now, err := s.cacheHits(ctx)
		if err != nil {
			return err
		}
		if hits < 0 || now <= hits {
			was := hits
			hits = now
			return fmt.Errorf("the cache has answered %.0f reads, then %.0f", was, now)
		}
		return nil
	})
}

// cacheHits is how many reads the cache has answered.
func (s *harness) cacheHits(ctx context.Context) (float64, error) {
	pods, err := s.pods(ctx, "api")
	if err != nil {
		return 0, err
	}
	hits := 0.0
	for _, p := range pods {
		text, err := s.metrics(ctx, p)
		if err != nil {
			return 0, err
		}
		for _, line := range samples(text, "vitrine_rediscache_gets_total") {
			if strings.Contains(line.labels, `outcome="hit"`) {
				hits += line.value
			}
		}
	}
	return hits, nil
}
