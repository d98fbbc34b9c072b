package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// input is the standard input of a load. Closing it ends the load.
type input struct {
	from *io.PipeReader
	to   *io.PipeWriter
}

func newInput() *input {
	from, to := io.Pipe()
	return &input{from, to}
}

// reader returns the standard input of a command. A nil input is empty.
func (i *input) reader() io.Reader {
	if i == nil {
		return nil
	}
	return i.from
}

// Duration of the load before and after a disruption.
const (
	loadBefore = 5 * time.Second
	loadAfter  = 10 * time.Second
)

// underLoad calls do while a client sends requests, and returns the client's tally. The flags are of the command load.
func (s *harness) underLoad(ctx context.Context, do func(context.Context) error, flags ...string) (tally, error) {
	type result struct {
		tally tally
		err   error
	}
	in := newInput()
	ended := make(chan result, 1)
	go func() {
		args := []string{"load", "-api", s.entry(), "-images", "2", "-wait", "12m"}
		t, err := s.client(ctx, in, append(args, flags...)...)
		in.from.Close() //nolint:errcheck // it always returns nil
		ended <- result{t, err}
	}()
	err := sleep(ctx, loadBefore)
	if err == nil {
		err = do(ctx)
	}
	if err == nil {
		err = sleep(ctx, loadAfter)
	}
	in.to.Close() //nolint:errcheck // it always returns nil
	r := <-ended
	return r.tally, errors.Join(err, r.err)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// disruption describes pods that are killed at the same time.
type disruption struct {
	name      string
	component string
	all       bool   // all pods, not only the first
	container string // if set, its process is killed instead of the pod
}

// checkHealing upgrades the programs under load, and then kills pods of each component.
func (s *harness) checkHealing(ctx context.Context) (stageResult, error) {
	t, err := s.underLoad(ctx, func(ctx context.Context) error {
		stamp := fmt.Sprintf("at-%d", s.sys.now().Unix())
		return s.deploy(ctx, "--set", "api.podAnnotations.e2e="+stamp, "--set", "worker.podAnnotations.e2e="+stamp)
	})
	if err == nil {
		err = t.checkAll()
	}
	if err != nil {
		return stageResult{}, fmt.Errorf("rolling upgrade: %w", err)
	}
	s.logf("rolling upgrade: %d requests, none failed", t.Requests)
	lines := []string{fmt.Sprintf("rolling upgrade of api and worker: %d requests, none failed, %d images ready",
		t.Requests, t.Ready)}
	for _, b := range []disruption{
		{name: "an api process", component: "api", container: "api"},
		{name: "all worker processes", component: "worker", container: "worker", all: true},
		{name: "an api pod", component: "api"},
		{name: "all workers", component: "worker", all: true},
		{name: "a Redis pod", component: "redis"},
		{name: "Kafka", component: "kafka", all: true},
		{name: "Postgres", component: "postgres", all: true},
		{name: "all of Redis", component: "redis", all: true},
	} {
		line, err := s.disrupt(ctx, b)
		if err != nil {
			return stageResult{}, fmt.Errorf("kill %s: %w", b.name, err)
		}
		s.logf("%s", line)
		lines = append(lines, line)
	}
	return stageResult{line: strings.Join(lines, "; ")}, nil
}

// disrupt kills pods under load and waits until the release is complete and accepts products again.
func (s *harness) disrupt(ctx context.Context, b disruption) (string, error) {
	var elapsed time.Duration
	t, err := s.underLoad(ctx, func(ctx context.Context) error {
		before, err := s.pods(ctx, b.component)
		if err != nil {
			return err
		}
		if len(before) == 0 {
			return errors.New("no such pod")
		}
		targets, wanted := before, len(before)
		if !b.all {
			targets = before[:1]
		}
		if b.component == "worker" {
			wanted = 1 // KEDA sets the number
		}
		start := s.sys.now()
		if err := s.kill(ctx, b, targets); err != nil {
			return err
		}
		err = until(ctx, "the pods", 6*time.Minute, time.Second, func(ctx context.Context) error {
			return s.checkReplaced(ctx, b, targets, wanted)
		})
		if err != nil {
			return err
		}
		if err := s.awaitService(ctx); err != nil {
			return err
		}
		elapsed = s.sys.now().Sub(start)
		return nil
	})
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s killed: complete after %.0f s, %d of %d requests failed, all %d accepted images ready",
		b.name, elapsed.Seconds(), t.Failed, t.Requests, t.Ready), nil
}

// kill kills the targets, or a process in each.
func (s *harness) kill(ctx context.Context, b disruption, targets []pod) error {
	if b.container == "" {
		return s.kube.kill(ctx, targets)
	}
	for _, v := range targets {
		if err := s.kube.crash(ctx, v, b.container, s.options.helper); err != nil {
			return err
		}
	}
	return nil
}

// checkReplaced returns nil if the release is complete and every target was replaced or restarted.
func (s *harness) checkReplaced(ctx context.Context, b disruption, targets []pod, wanted int) error {
	now, err := s.pods(ctx, b.component)
	if err != nil {
		return err
	}
	for _, p := range now {
		for _, v := range targets {
			if p.Metadata.UID == v.Metadata.UID && p.restarts() == v.restarts() {
				return fmt.Errorf("pod %s still exists", v.Metadata.Name)
			}
		}
	}
	if n := countReady(now); n < wanted {
		return fmt.Errorf("%d of %d pods of %s are ready", n, wanted, b.component)
	}
	return s.checkReady(ctx)
}

// awaitService waits until a product is accepted, its image is ready, and the cache serves reads.
func (s *harness) awaitService(ctx context.Context) error {
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
			previous := hits
			hits = now
			return fmt.Errorf("the cache has answered %.0f reads, then %.0f", previous, now)
		}
		return nil
	})
}

// cacheHits returns the number of reads that the cache has answered.
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
