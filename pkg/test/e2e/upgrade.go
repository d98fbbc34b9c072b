package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// checkUpgrade changes values, goes back, removes the release, and installs it again on the volumes that it has left.
func (s *harness) checkUpgrade(ctx context.Context) (seen, error) {
	if err := s.deploy(ctx, "--set", "log.level=debug"); err != nil {
		return seen{}, fmt.Errorf("upgrade: %w", err)
	}
	if err := s.logLevel(ctx, "debug"); err != nil {
		return seen{}, fmt.Errorf("upgrade: %w", err)
	}
	if _, err := s.burst(ctx, "-wait", "3m"); err != nil {
		return seen{}, fmt.Errorf("upgrade: %w", err)
	}
	if err := s.helm.rollback(ctx); err != nil {
		return seen{}, fmt.Errorf("rollback: %w", err)
	}
	if err := s.awaitWhole(ctx); err != nil {
		return seen{}, fmt.Errorf("rollback: %w", err)
	}
	if err := s.logLevel(ctx, "info"); err != nil {
		return seen{}, fmt.Errorf("rollback: %w", err)
	}
	if _, err := s.burst(ctx, "-wait", "3m"); err != nil {
		return seen{}, fmt.Errorf("rollback: %w", err)
	}
	s.say("upgraded and rolled back")
	claims, err := s.uninstall(ctx)
	if err != nil {
		return seen{}, err
	}
	if err := s.reinstall(ctx); err != nil {
		return seen{}, fmt.Errorf("install on volumes that were left: %w", err)
	}
	if _, err := s.uninstall(ctx); err != nil {
		return seen{}, err
	}
	return seen{line: fmt.Sprintf("helm upgrade with a changed value and helm rollback work; helm uninstall leaves nothing "+
		"but the %d volumes that the notes name, and an install under the same name takes them up again", len(claims))}, nil
}

// uninstall removes the release and returns the volume claims that it has left.
func (s *harness) uninstall(ctx context.Context) (claims []string, err error) {
	notes, err := s.helm.notes(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.helm.uninstall(ctx); err != nil {
		return nil, fmt.Errorf("uninstall: %w", err)
	}
	err = until(ctx, "nothing to be left", 3*time.Minute, 2*time.Second, func(ctx context.Context) (err error) {
		claims, err = s.left(ctx, notes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("uninstall: %w", err)
	}
	return claims, nil
}

// reinstall installs the release on its old volumes. All its pods have other addresses now: the first product has to be
// there, every Redis replica has to find its master, and new pictures have to be made.
func (s *harness) reinstall(ctx context.Context) error {
	if err := s.deploy(ctx); err != nil {
		return err
	}
	if _, err := s.kube.exec(ctx, nil, "get", s.api()+"/products/1"); err != nil {
		return err
	}
	if err := until(ctx, "all replicas of Redis", 3*time.Minute, 2*time.Second, s.copied); err != nil {
		return err
	}
	_, err := s.burst(ctx, "-wait", "3m")
	return err
}

// copied is nil when every node of the release's own Redis Cluster is a master, or connected to its master.
func (s *harness) copied(ctx context.Context) error {
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

// logLevel is an error unless all our pods log from level on.
func (s *harness) logLevel(ctx context.Context, level string) error {
	pods, err := s.ours(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		text, err := s.admin(ctx, p, "/loglevel")
		if err != nil {
			return err
		}
		if !strings.Contains(text, level) {
			return fmt.Errorf("%s logs from %s on, want %s", p.Metadata.Name, text, level)
		}
	}
	return nil
}

// left returns the volume claims that the release has left. Anything else, or one that its notes do not name, is an error.
func (s *harness) left(ctx context.Context, notes string) ([]string, error) {
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
		return nil, fmt.Errorf("left is %s", strings.Join(others, ", "))
	}
	named := namedVolumes(notes)
	slices.Sort(claims)
	if !slices.Equal(named, claims) {
		return nil, fmt.Errorf("the volumes %v are left, and the notes name %v", claims, named)
	}
	return claims, nil
}

// removal is how the notes say that volumes are removed, in one line.
var removal = regexp.MustCompile(`delete pvc (.*)`)

// namedVolumes returns the names of the volumes that the notes say how to remove, sorted.
func namedVolumes(notes string) []string {
	var names []string
	for _, found := range removal.FindAllStringSubmatch(strings.ReplaceAll(notes, "\\\n", " "), -1) {
		names = append(names, strings.Fields(found[1])...)
	}
	slices.Sort(names)
	return names
}
