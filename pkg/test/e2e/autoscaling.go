package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size of the burst.
const (
	burstProducts = 100
	burstImages   = 5
	burstSize     = "1600x1200"
	readyGoal     = 15 * time.Second // from lag to the first new pod that is ready
)

// checkAutoscaling checks that KEDA scales the workers with the lag, up and down, from one worker and from none, and
// measures how throughput grows with the number of workers.
func (s *harness) checkAutoscaling(ctx context.Context) (stageResult, error) {
	minWorkers, maxWorkers, err := s.bounds(ctx)
	if err != nil {
		return stageResult{}, err
	}
	up, err := s.scale(ctx, minWorkers, maxWorkers, "-products", strconv.Itoa(burstProducts),
		"-images", strconv.Itoa(burstImages), "-size", burstSize, "-wait", "20m")
	if err != nil {
		return stageResult{}, fmt.Errorf("from %d workers: %w", minWorkers, err)
	}
	if err := s.deploy(ctx, "--set", "worker.autoscaling.scaleToZero=true"); err != nil {
		return stageResult{}, err
	}
	fromZero, err := s.scale(ctx, 0, 1, "-products", "10", "-wait", "5m")
	if err != nil {
		return stageResult{}, fmt.Errorf("from no worker: %w", err)
	}
	standinFlags := s.standinFlags()
	if err := s.deploy(ctx, standinFlags...); err != nil {
		return stageResult{}, err
	}
	idle, err := s.scale(ctx, minWorkers, maxWorkers, "-products", "200")
	if err != nil {
		return stageResult{}, fmt.Errorf("with a codec that sleeps: %w", err)
	}
	throughput, err := s.measureThroughput(ctx, standinFlags)
	if err != nil {
		return stageResult{}, fmt.Errorf("throughput: %w", err)
	}
	if err := s.deploy(ctx); err != nil {
		return stageResult{}, err
	}
	throughput.line = fmt.Sprintf("%d images: %d -> %d -> %d workers, all ready, none processed twice, "+
		"first new pod ready %s after the first was accepted, with all CPUs busy; "+
		"%s with a codec that sleeps; %d images: 0 -> %d -> 0, first pod ready "+
		"after %s; %s",
		up.tally.Images, minWorkers, up.maxReady, minWorkers, formatReady(up.first), formatReady(idle.first),
		fromZero.tally.Images, fromZero.maxReady, formatReady(fromZero.first), throughput.line)
	return throughput, nil
}

// standinFlags returns helm's flags for workers whose codec sleeps, so that CPU is not the limit.
func (s *harness) standinFlags() []string {
	image, tag, _ := strings.Cut(s.standin, ":")
	return []string{
		"--set", "worker.image.repository=" + image, "--set", "worker.image.tag=" + tag, "--set", "worker.codecChildren=1",
	}
}

// bounds returns the minimum and maximum number of workers of the release's ScaledObject. It is an error if they are equal.
func (s *harness) bounds(ctx context.Context) (minWorkers, maxWorkers int, err error) {
	var scalers list[scaledObject]
	if err := s.kube.get(ctx, &scalers, "scaledobjects", "-l", "app.kubernetes.io/instance="+s.helm.release); err != nil {
		return 0, 0, err
	}
	for _, o := range scalers.Items {
		if o.Spec.Min != nil && o.Spec.Max != nil && *o.Spec.Min < *o.Spec.Max {
			return *o.Spec.Min, *o.Spec.Max, nil
		}
	}
	return 0, 0, fmt.Errorf("none of %d ScaledObjects has a range of replicas", len(scalers.Items))
}

// formatReady formats a time from lag to a ready pod, with the goal if it was missed.
func formatReady(elapsed time.Duration) string {
	if elapsed > readyGoal {
		return fmt.Sprintf("%.0f s (goal %.0f s, missed)", elapsed.Seconds(), readyGoal.Seconds())
	}
	return fmt.Sprintf("%.0f s", elapsed.Seconds())
}

// scaled is the result of a scaling.
type scaled struct {
	tally    tally
	first    time.Duration // from the first product to the first ready new worker, by the cluster's clocks
	maxReady int           // largest number of ready workers
}

// watch observes the workers while they scale.
type watch struct {
	known    map[string]bool // UIDs of the workers before the burst
	maxReady int             // largest number of ready workers
	first    time.Time       // when the first new worker became ready
}

// see records the current workers.
func (w *watch) see(pods []pod) {
	w.maxReady = max(w.maxReady, countReady(pods))
	for _, p := range pods {
		since, ready := p.readySince()
		if ready && !w.known[p.Metadata.UID] && (w.first.IsZero() || since.Before(w.first)) {
			w.first = since
		}
	}
}

// scale posts a burst while there are minWorkers workers, and waits until at least maxWorkers are ready and then minWorkers
// again.
func (s *harness) scale(ctx context.Context, minWorkers, maxWorkers int, burst ...string) (scaled, error) {
	old, err := s.workers(ctx, minWorkers, 5*time.Minute)
	if err != nil {
		return scaled{}, err
	}
	seen := watch{known: map[string]bool{}}
	for _, p := range old {
		seen.known[p.Metadata.UID] = true
	}
	s.logf("%d workers; posting", minWorkers)
	start := s.sys.now()
	type result struct {
		tally tally
		err   error
	}
	results := make(chan result, 1)
	go func() {
		t, err := s.burst(ctx, append([]string{"-counted"}, burst...)...)
		results <- result{t, err}
	}()
	what := fmt.Sprintf("%d workers", maxWorkers)
	watched := until(ctx, what, 5*time.Minute, 500*time.Millisecond, func(ctx context.Context) error {
		pods, err := s.pods(ctx, "worker")
		if err != nil {
			return err
		}
		if seen.see(pods); seen.maxReady < maxWorkers {
			return fmt.Errorf("at most %d workers were ready", seen.maxReady)
		}
		return nil
	})
	s.logf("at most %d ready workers after %.0f s", seen.maxReady, s.sys.now().Sub(start).Seconds())
	posted := <-results
	if err := errors.Join(posted.err, watched); err != nil {
		return scaled{}, err
	}
	done := scaled{tally: posted.tally, first: seen.first.Sub(posted.tally.Started), maxReady: seen.maxReady}
	if done.first < -time.Second || done.first > time.Hour { // Kubernetes' times are whole seconds
		return scaled{}, fmt.Errorf("the first product was created at %s, the first new worker was ready at %s: "+
			"the clocks differ", posted.tally.Started, seen.first)
	}
	s.logf("a new worker was ready after %.0f s, all %d images after %.0f s",
		done.first.Seconds(), done.tally.Ready, s.sys.now().Sub(start).Seconds())
	_, err = s.workers(ctx, minWorkers, 5*time.Minute)
	return done, err
}

// measureThroughput measures the throughput of 1, 2 and 4 workers whose codec sleeps. KEDA is off, so that the number is
// fixed.
func (s *harness) measureThroughput(ctx context.Context, standinFlags []string) (stageResult, error) {
	rates := map[int]float64{}
	for _, n := range []int{1, 2, 4} {
		fixed := []string{"--set", "keda.enabled=false", "--set", "worker.replicas=" + strconv.Itoa(n)}
		err := s.deploy(ctx, slices.Concat(standinFlags, fixed)...)
		if err != nil {
			return stageResult{}, err
		}
		if _, err := s.workers(ctx, n, 5*time.Minute); err != nil {
			return stageResult{}, err
		}
		if _, err := s.burst(ctx, "-products", "24"); err != nil { // afterwards every worker has its partitions
			return stageResult{}, err
		}
		t, err := s.burst(ctx, "-products", strconv.Itoa(100*n))
		if err != nil {
			return stageResult{}, err
		}
		if rates[n], err = rate(t.Ends, 0.1, 0.6); err != nil {
			return stageResult{}, err
		}
		s.logf("%d workers make %.2f images a second", n, rates[n])
	}
	return stageResult{
		line: fmt.Sprintf("with a codec that sleeps, 1, 2 and 4 workers make %.2f, %.2f and %.2f images a second",
			rates[1], rates[2], rates[4]),
		ratios: []ratio{{"workers-2/linear", rates[2] / rates[1] / 2}, {"workers-4/linear", rates[4] / rates[1] / 4}},
	}, nil
}
