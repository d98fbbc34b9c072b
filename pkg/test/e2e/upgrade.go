package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// checkUpgrade upgrades and rolls back the release, uninstalls it, and installs it again on the remaining volumes.
func (s *harness) checkUpgrade(ctx context.Context) (stageResult, error) {
	if err := s.deploy(ctx, "--set", "log.level=debug"); err != nil {
		return stageResult{}, fmt.Errorf("upgrade: %w", err)
	}
	if err := s.logLevel(ctx, "debug"); err != nil {
		return stageResult{}, fmt.Errorf("upgrade: %w", err)
	}
	if _, err := s.burst(ctx, "-wait", "3m"); err != nil {
		return stageResult{}, fmt.Errorf("upgrade: %w", err)
	}
	if err := s.helm.rollback(ctx); err != nil {
		return stageResult{}, fmt.Errorf("rollback: %w", err)
	}
	if err := s.awaitReady(ctx); err != nil {
		return stageResult{}, fmt.Errorf("rollback: %w", err)
	}
	if err := s.logLevel(ctx, "info"); err != nil {
		return stageResult{}, fmt.Errorf("rollback: %w", err)
	}
	if _, err := s.burst(ctx, "-wait", "3m"); err != nil {
		return stageResult{}, fmt.Errorf("rollback: %w", err)
	}
	s.logf("upgraded and rolled back")
	claims, err := s.uninstall(ctx)
	if err != nil {
		return stageResult{}, err
	}
	if err := s.reinstall(ctx); err != nil {
		return stageResult{}, fmt.Errorf("install on existing volumes: %w", err)
	}
	if _, err := s.uninstall(ctx); err != nil {
		return stageResult{}, err
	}
	return stageResult{line: fmt.Sprintf("helm upgrade with a changed value and helm rollback work; "+
		"helm uninstall leaves only the %d volumes that the notes name, and an install with the same name uses them",
		len(claims))}, nil
}

// uninstall removes the release and returns the remaining volume claims.
func (s *harness) uninstall(ctx context.Context) (claims []string, err error) {
	notes, err := s.helm.notes(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.helm.uninstall(ctx); err != nil {
		return nil, fmt.Errorf("uninstall: %w", err)
	}
	err = until(ctx, "the removal of all objects", 3*time.Minute, 2*time.Second, func(ctx context.Context) (err error) {
		claims, err = s.remainingClaims(ctx, notes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("uninstall: %w", err)
	}
	return claims, nil
}

// reinstall installs the release on its old volumes. Its pods have new addresses, so it checks that the first product
// exists, that every Redis replica finds its master, and that new images become ready.
func (s *harness) reinstall(ctx context.Context) error {
	if err := s.deploy(ctx); err != nil {
		return err
	}
	if _, err := s.kube.exec(ctx, nil, "get", s.api()+"/products/1"); err != nil {
		return err
	}
	if err := until(ctx, "all replicas of Redis", 3*time.Minute, 2*time.Second, s.checkReplicas); err != nil {
		return err
	}
	_, err := s.burst(ctx, "-wait", "3m")
	return err
}

// checkReplicas returns nil if every node of the release's Redis Cluster is a master or connected to its master.
func (s *harness) checkReplicas(ctx context.Context) error {
	nodes, err := s.pods(ctx, "redis")
	if err != nil {
		return err
	}
	for _, node := range nodes {
		text, err := s.kube.do(ctx, "exec", node.Metadata.Name, "-c", "redis", "--", "redis-cli", "info", "replication")
		if err != nil {
			return err
		}
		if !strings.Contains(text, "role:master") && !strings.Contains(text, "master_link_status:up") {
			return fmt.Errorf("%s has no connection to its master", node.Metadata.Name)
		}
	}
	return nil
}

// logLevel returns an error unless all api and worker pods have this log level.
func (s *harness) logLevel(ctx context.Context, level string) error {
	pods, err := s.programPods(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		text, err := s.admin(ctx, p, "/loglevel")
		if err != nil {
			return err
		}
		if !strings.Contains(text, level) {
			return fmt.Errorf("%s has the log level %s, want %s", p.Metadata.Name, text, level)
		}
	}
	return nil
}

// remainingClaims returns the volume claims that remain after the uninstall. Other objects, and claims that the notes do not
// name, are an error.
func (s *harness) remainingClaims(ctx context.Context, notes string) ([]string, error) {
	now, err := s.objects(ctx)
	if err != nil {
		return nil, err
	}
	outside, err := s.clusterObjects(ctx)
	if err != nil {
		return nil, err
	}
	var claims, others []string
	for _, object := range append(now, outside...) {
		name, isClaim := strings.CutPrefix(object, "persistentvolumeclaim/")
		switch {
		case slices.Contains(s.before, object):
		case isClaim:
			claims = append(claims, name)
		default:
			others = append(others, object)
		}
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("objects are left: %s", strings.Join(others, ", "))
	}
	named := namedVolumes(notes)
	slices.Sort(claims)
	if !slices.Equal(named, claims) {
		return nil, fmt.Errorf("the volumes %v are left, the notes name %v", claims, named)
	}
	return claims, nil
}

// removal matches the command in the notes that removes volumes, after joining its lines.
var removal = regexp.MustCompile(`delete pvc (.*)`)

// namedVolumes returns the sorted names of the volumes in that command.
func namedVolumes(notes string) []string {
	var names []string
	for _, found := range removal.FindAllStringSubmatch(strings.ReplaceAll(notes, "\\\n", " "), -1) {
		names = append(names, strings.Fields(found[1])...)
	}
	slices.Sort(names)
	return names
}
