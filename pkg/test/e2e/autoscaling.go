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

// What is posted.
const (
	burstProducts = 100
	burstPictures = 5
	burstSize     = "1600x1200"
	readyGoal     = 15 * time.Second // from lag to the first new pod that is ready
)

// checkAutoscaling has KEDA scale the workers on lag, up and down, from one and from none, and measures how throughput
// grows with them.
func (s *harness) checkAutoscaling(ctx context.Context) (seen, error) {
	least, most, err := s.bounds(ctx)
	if err != nil {
		return seen{}, err
	}
	up, err := s.scale(ctx, least, most, "-products", strconv.Itoa(burstProducts), "-pictures", strconv.Itoa(burstPictures),
		"-size", burstSize, "-wait", "20m")
	if err != nil {
		return seen{}, fmt.Errorf("from %d workers: %w", least, err)
	}
	if err := s.deploy(ctx, "--set", "worker.autoscaling.scaleToZero=true"); err != nil {
		return seen{}, err
	}
	woken, err := s.scale(ctx, 0, 1, "-products", "10", "-wait", "5m")
	if err != nil {
		return seen{}, fmt.Errorf("from no worker: %w", err)
	}
	sleeping := s.sleeping()
	if err := s.deploy(ctx, sleeping...); err != nil {
		return seen{}, err
	}
	idle, err := s.scale(ctx, least, most, "-products", "200")
	if err != nil {
		return seen{}, fmt.Errorf("with a codec that sleeps: %w", err)
	}
	shown, err := s.measureThroughput(ctx, sleeping)
	if err != nil {
		return seen{}, fmt.Errorf("throughput: %w", err)
	}
	if err := s.deploy(ctx); err != nil {
		return seen{}, err
	}
	shown.line = fmt.Sprintf("%d pictures: %d -> %d -> %d workers, all ready, none twice, first new pod ready %s after the "+
		"first was accepted, with all CPUs busy; %s with a codec that sleeps; %d pictures: 0 -> %d -> 0, first pod ready "+
		"after %s; %s",
		up.tally.Pictures, least, up.most, least, compared(up.first), compared(idle.first),
		woken.tally.Pictures, woken.most, compared(woken.first), shown.line)
	return shown, nil
}

// sleeping are the flags for workers whose codec sleeps, so that no CPU is what they wait for.
func (s *harness) sleeping() []string {
	image, tag, _ := strings.Cut(s.standin, ":")
	return []string{
		"--set", "worker.image.repository=" + image, "--set", "worker.image.tag=" + tag, "--set", "worker.codecChildren=1",
	}
}

// bounds reads how many workers there may be from the release's ScaledObject. They have to differ.
func (s *harness) bounds(ctx context.Context) (least, most int, err error) {
	var scalers list[scaledObject]
	if err := s.kube.get(ctx, &scalers, "scaledobjects", "-l", "app.kubernetes.io/instance="+s.helm.release); err != nil {
		return 0, 0, err
	}
	for _, o := range scalers.Items {
		if o.Spec.Min != nil && o.Spec.Max != nil && *o.Spec.Min < *o.Spec.Max {
			return *o.Spec.Min, *o.Spec.Max, nil
		}
	}
	return 0, 0, fmt.Errorf("none of %d ScaledObjects has room to scale", len(scalers.Items))
}

// compared is a time from lag to a ready pod, beside its goal.
func compared(took time.Duration) string {
	if took > readyGoal {
		return fmt.Sprintf("%.0f s (goal %.0f s, missed)", took.Seconds(), readyGoal.Seconds())
	}
	return fmt.Sprintf("%.0f s", took.Seconds())
}

// scaled is how workers have followed the lag.
type scaled struct {
	tally tally
	first time.Duration // from the first product to the first new worker that was ready, as the cluster's clocks have it
	most  int           // ready workers
}

// watch is what is seen of workers while they scale.
type watch struct {
	known map[string]bool // UIDs of workers that were there before
	most  int             // workers that were ready at the same time
	first time.Time       // when the first new one was ready
}

// see takes the workers that there are now.
func (w *watch) see(pods []pod) {
	w.most = max(w.most, countReady(pods))
	for _, p := range pods {
		since, ready := p.readySince()
		if ready && !w.known[p.Metadata.UID] && (w.first.IsZero() || since.Before(w.first)) {
			w.first = since
		}
	}
}

// scale posts a burst while there are least workers, sees at least most of them ready, and then least again.
func (s *harness) scale(ctx context.Context, least, most int, burst ...string) (scaled, error) {
	old, err := s.workers(ctx, least, 5*time.Minute)
	if err != nil {
		return scaled{}, err
	}
	seen := watch{known: map[string]bool{}}
	for _, p := range old {
		seen.known[p.Metadata.UID] = true
	}
	s.say("%d workers; posting", least)
	began := s.sys.now()
	type result struct {
		tally tally
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		t, err := s.burst(ctx, append([]string{"-counted"}, burst...)...)
		ended <- result{t, err}
	}()
	what := fmt.Sprintf("%d workers", most)
	watched := until(ctx, what, 5*time.Minute, 500*time.Millisecond, func(ctx context.Context) error {
		pods, err := s.pods(ctx, "worker")
		if err != nil {
			return err
		}
		if seen.see(pods); seen.most < most {
			return fmt.Errorf("there were at most %d ready workers", seen.most)
		}
		return nil
	})
	s.say("at most %d ready workers after %.0f s", seen.most, s.sys.now().Sub(began).Seconds())
	posted := <-ended
	if err := errors.Join(posted.err, watched); err != nil {
		return scaled{}, err
	}
	done := scaled{tally: posted.tally, first: seen.first.Sub(posted.tally.Began), most: seen.most}
	if done.first < -time.Second || done.first > time.Hour { // whole seconds of one against microseconds of the other
		return scaled{}, fmt.Errorf("the first product is of %s, and the first new worker was ready at %s: their clocks differ",
			posted.tally.Began, seen.first)
	}
	s.say("a new worker was ready after %.0f s, all %d pictures after %.0f s",
		done.first.Seconds(), done.tally.Ready, s.sys.now().Sub(began).Seconds())
	_, err = s.workers(ctx, least, 5*time.Minute)
	return done, err
}

// measureThroughput measures 1, 2 and 4 sleeping workers. KEDA has none to remove when it is switched off.
func (s *harness) measureThroughput(ctx context.Context, sleeping []string) (seen, error) {
	rates := map[int]float64{}
	for _, n := range []int{1, 2, 4} {
		fixed := []string{"--set", "keda.enabled=false", "--set", "worker.replicas=" + strconv.Itoa(n)}
		err := s.deploy(ctx, slices.Concat(sleeping, fixed)...)
		if err != nil {
			return seen{}, err
		}
		if _, err := s.workers(ctx, n, 5*time.Minute); err != nil {
			return seen{}, err
		}
		if _, err := s.burst(ctx, "-products", "24"); err != nil { // every worker has its partitions afterwards
			return seen{}, err
		}
		t, err := s.burst(ctx, "-products", strconv.Itoa(100*n))
		if err != nil {
			return seen{}, err
		}
		if rates[n], err = rate(t.Ends, 0.1, 0.6); err != nil {
			return seen{}, err
		}
		s.say("%d workers make %.2f pictures a second", n, rates[n])
	}
	return seen{
		line: fmt.Sprintf("with a codec that sleeps, 1, 2 and 4 workers make %.2f, %.2f and %.2f pictures a second",
			rates[1], rates[2], rates[4]),
		ratios: []ratio{{"workers-2/linear", rates[2] / rates[1] / 2}, {"workers-4/linear", rates[4] / rates[1] / 4}},
	}, nil
}
