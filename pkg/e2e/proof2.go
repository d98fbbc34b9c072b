package main

import (
	"context"
	"fmt"
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

// showScaling has KEDA scale the workers on lag, up and down, from one and from none, and measures how throughput grows with
// them.
func (s *stage) showScaling(ctx context.Context) (seen, error) {
	least, most, err := s.bounds(ctx)
	if err != nil {
		return seen{}, err
	}
	var lines []string
	fromMin, err := s.scale(ctx, least, most, []string{
		"-products", strconv.Itoa(burstProducts), "-pictures", strconv.Itoa(burstPictures), "-size", burstSize, "-wait", "20m",
	})
	if err != nil {
		return seen{}, fmt.Errorf("from %d workers: %w", least, err)
	}
	lines = append(lines, fmt.Sprintf("%d pictures: %d -> %d -> %d workers, all ready, none twice, first new pod ready %.1f s "+
		"after the first post%s", fromMin.tally.Pictures, least, fromMin.most, least,
		fromMin.first.Seconds(), missed(fromMin.first)))

	if err := s.deploy(ctx, "--set", "worker.autoscaling.scaleToZero=true"); err != nil {
		return seen{}, err
	}
	fromZero, err := s.scale(ctx, 0, 1, []string{"-products", "10", "-wait", "5m"})
	if err != nil {
		return seen{}, fmt.Errorf("from no worker: %w", err)
	}
	lines = append(lines, fmt.Sprintf("%d pictures: 0 -> %d -> 0, first pod ready after %.1f s%s",
		fromZero.tally.Pictures, fromZero.most, fromZero.first.Seconds(), missed(fromZero.first)))

	if err := s.deploy(ctx); err != nil { // KEDA must not be about to remove the last worker when it is switched off
		return seen{}, err
	}
	if _, err := s.workers(ctx, least, 5*time.Minute); err != nil {
		return seen{}, err
	}
	shown, err := s.showThroughput(ctx)
	if err != nil {
		return seen{}, fmt.Errorf("throughput: %w", err)
	}
	if err := s.deploy(ctx); err != nil {
		return seen{}, err
	}
	shown.line = strings.Join(append(lines, shown.line), "; ")
	return shown, nil
}

// bounds reads how many workers there may be from the release's ScaledObject. They have to differ.
func (s *stage) bounds(ctx context.Context) (least, most int, err error) {
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

func missed(took time.Duration) string {
	if took > readyGoal {
		return fmt.Sprintf(" (goal %.0f s, missed)", readyGoal.Seconds())
	}
	return ""
}

// scaled is how workers have followed the lag.
type scaled struct {
	tally tally
	first time.Duration // from the first post to the first new worker that was ready
	most  int           // ready workers
}

// scale posts a burst while there are least workers, sees at least most of them ready, and then least again.
func (s *stage) scale(ctx context.Context, least, most int, burst []string) (scaled, error) {
	old, err := s.workers(ctx, least, 5*time.Minute)
	if err != nil {
		return scaled{}, err
	}
	s.say("%d workers; posting", least)
	known := map[string]bool{}
	for _, p := range old {
		known[p.Metadata.UID] = true
	}
	began := s.sys.now()
	var done scaled
	posted := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t, err := s.burst(ctx, burst...)
		done.tally = t
		posted <- err
	}()
	var first time.Duration
	var highest int
	watch := func(ctx context.Context) error {
		pods, err := s.pods(ctx, "worker")
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if p.ready() {
				ready++
				if !known[p.Metadata.UID] && first == 0 {
					first = s.sys.now().Sub(began)
					s.say("a new worker is ready after %.1f s", first.Seconds())
				}
			}
		}
		highest = max(highest, ready)
		if highest < most {
			return fmt.Errorf("there were at most %d ready workers", highest)
		}
		return nil
	}
	watched := until(ctx, fmt.Sprintf("%d workers", most), 5*time.Minute, 500*time.Millisecond, watch)
	s.say("at most %d ready workers after %.0f s", highest, s.sys.now().Sub(began).Seconds())
	<-ended
	if err := <-posted; err != nil {
		return scaled{}, err
	}
	if watched != nil {
		return scaled{}, watched
	}
	done.first, done.most = first, highest
	s.say("all %d pictures are ready after %.0f s", done.tally.Ready, s.sys.now().Sub(began).Seconds())
	_, err = s.workers(ctx, least, 5*time.Minute)
	return done, err
}

// showThroughput measures 1, 2 and 4 workers whose codec sleeps, so that no CPU is what they wait for.
func (s *stage) showThroughput(ctx context.Context) (seen, error) {
	image, tag, _ := strings.Cut(s.standin, ":")
	rates := map[int]float64{}
	for _, n := range []int{1, 2, 4} {
		err := s.deploy(ctx, "--set", "worker.image.repository="+image, "--set", "worker.image.tag="+tag,
			"--set", "keda.enabled=false", "--set", "worker.replicas="+strconv.Itoa(n), "--set", "worker.codecChildren=1")
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
