package main

import (
	"context"
	"fmt"
	"time"
)

// outageLength is the time for which Postgres is stopped. It is longer than the 30 s after which an instance may leave the
// Service.
const outageLength = time.Minute

// checkOutage stops the release's own Postgres under load.
func (s *harness) checkOutage(ctx context.Context) (stageResult, error) {
	return s.withoutPostgres(ctx, "Postgres stopped for "+outageLength.String(), s.stopPostgres)
}

// checkFailover deletes the primary of a Cluster of CloudNativePG under load.
func (s *harness) checkFailover(ctx context.Context) (stageResult, error) {
	return s.withoutPostgres(ctx, "the primary of three servers deleted", s.deletePrimary)
}

// withoutPostgres takes Postgres away under load. Meanwhile all cached reads have to succeed, failed writes need a 503 with
// Retry-After, and all api pods have to stay ready.
func (s *harness) withoutPostgres(
	ctx context.Context, what string, takeAway func(context.Context) error,
) (stageResult, error) {
	var elapsed time.Duration
	t, err := s.underLoad(ctx, func(ctx context.Context) error {
		start := s.sys.now()
		if err := s.whileReady(ctx, "api", takeAway); err != nil {
			return err
		}
		elapsed = s.sys.now().Sub(start)
		return s.awaitService(ctx)
	}, "-cached", "-every", "50ms", "-posts", "5")
	if err == nil {
		err = t.checkOutage()
	}
	if err != nil {
		return stageResult{}, fmt.Errorf("%s: %w", what, err)
	}
	through := "the Service"
	if s.ingress != "" {
		through = "the ingress controller"
	}
	return stageResult{line: fmt.Sprintf("%s: complete after %.0f s; through %s, 0 of %d cached reads and "+
		"%d of %d writes failed, these with 503 and Retry-After; all api pods stayed ready; all %d accepted images ready",
		what, elapsed.Seconds(), through, t.Reads, t.Refused, t.Requests-t.Reads, t.Ready)}, nil
}

// whileReady calls do, and returns an error if a pod of the component was seen unready meanwhile, or if none was seen.
func (s *harness) whileReady(ctx context.Context, component string, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watched, seen := make(chan struct{}), 0
	done := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			pods, err := s.pods(ctx, component)
			if err == nil && len(pods) > 0 {
				seen++
			}
			if err == nil && countReady(pods) < len(pods) {
				cancel(fmt.Errorf("%d of %d pods of %s were ready", countReady(pods), len(pods), component))
			}
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	err := do(ctx)
	close(done)
	<-watched
	defer cancel(nil)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil && seen == 0 {
		err = fmt.Errorf("the pods of %s were not seen", component)
	}
	return err
}

// stopPostgres stops the release's own server and starts it again when it has been away for outageLength.
func (s *harness) stopPostgres(ctx context.Context) error {
	if err := s.scalePostgres(ctx, 0); err != nil {
		return err
	}
	// It may serve the connections that it has until its grace period ends.
	err := until(ctx, "the end of Postgres", 4*time.Minute, time.Second, func(ctx context.Context) error {
		pods, err := s.pods(ctx, "postgres")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("pod %s still exists", pods[0].Metadata.Name)
		}
		return err
	})
	if err == nil {
		err = sleep(ctx, outageLength)
	}
	if err == nil {
		err = s.scalePostgres(ctx, 1)
	}
	if err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

func (s *harness) scalePostgres(ctx context.Context, replicas int) error {
	_, err := s.kube.do(ctx, "scale", "statefulset", s.fullname()+"-postgres", fmt.Sprintf("--replicas=%d", replicas))
	return err
}

// deletePrimary deletes the pod of the primary and waits until another server is the primary and all are ready.
func (s *harness) deletePrimary(ctx context.Context) error {
	name := "clusters.postgresql.cnpg.io/" + s.fullname() + "-postgres"
	var before cluster
	if err := s.kube.get(ctx, &before, name); err != nil {
		return err
	}
	if _, err := s.kube.do(ctx, "delete", "pod", before.Status.CurrentPrimary, "--grace-period=1", "--wait=false"); err != nil {
		return err
	}
	err := until(ctx, "another primary", 5*time.Minute, time.Second, func(ctx context.Context) error {
		var now cluster
		if err := s.kube.get(ctx, &now, name); err != nil {
			return err
		}
		if now.Status.CurrentPrimary == before.Status.CurrentPrimary || now.Status.ReadyInstances < now.Spec.Instances {
			return fmt.Errorf("the primary is %s, %d servers are ready", now.Status.CurrentPrimary, now.Status.ReadyInstances)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.awaitReady(ctx)
}
