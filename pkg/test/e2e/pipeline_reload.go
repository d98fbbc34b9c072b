package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	pipelineKey = "imagepipeline.yaml" // of the ConfigMap

	// newRenditions is a pipeline that nobody else has.
	newRenditions = `[{"name":"e2e","width":64,"formats":[{"format":"jpeg","quality":70}]}]`

	// brokenPipeline says what no codec can do.
	brokenPipeline = "apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: default}\n" +
		"spec: {renditions: [{name: x, width: -1}]}\n"

	// syncLimit is how long a change may take to reach a pod: the kubelet looks once a minute, and keeps what it has read for
	// as long.
	syncLimit = 4 * time.Minute
)

// checkReload changes the pipeline, well and badly, and sees running pods follow, or not.
func (s *harness) checkReload(ctx context.Context) (seen, error) {
	two := []string{"--set", "worker.autoscaling.minReplicas=2", "--set", "worker.replicas=2"} // with KEDA, or without
	if err := s.deploy(ctx, two...); err != nil {
		return seen{}, err
	}
	if _, err := s.workers(ctx, 2, 3*time.Minute); err != nil {
		return seen{}, err
	}
	before, err := s.running(ctx)
	if err != nil {
		return seen{}, err
	}
	old, err := s.revision(ctx, 1)
	if err != nil {
		return seen{}, err
	}

	began := s.sys.now()
	if err := s.deploy(ctx, append(two, "--set-json", "pipeline.renditions="+newRenditions)...); err != nil {
		return seen{}, err
	}
	changed, err := s.awaitRevision(ctx, func(revision string) bool { return revision != old }, 1)
	if err != nil {
		return seen{}, fmt.Errorf("a good pipeline: %w", err)
	}
	took := s.sys.now().Sub(began)
	s.say("a new pipeline is in force everywhere after %.0f s", took.Seconds())
	if err := s.makes(ctx, "e2e"); err != nil {
		return seen{}, fmt.Errorf("a good pipeline: %w", err)
	}

	if err := s.breakPipeline(ctx, changed); err != nil {
		return seen{}, fmt.Errorf("a bad pipeline: %w", err)
	}
	after, err := s.running(ctx)
	if err != nil {
		return seen{}, err
	}
	if !slices.Equal(before, after) {
		return seen{}, fmt.Errorf("pods have restarted: %v has become %v", before, after)
	}
	if err := s.deploy(ctx); err != nil {
		return seen{}, err
	}
	return seen{line: fmt.Sprintf("a changed pipeline is in force in %d pods after %.0f s; a bad one leaves the last good "+
		"in force and shows in the metrics; no pod restarted", len(after), took.Seconds())}, nil
}

// breakPipeline puts a bad pipeline into the ConfigMap and sees that good stays in force, and then that a good one is taken
// again.
func (s *harness) breakPipeline(ctx context.Context, good string) error {
	name, text, err := s.pipelineMap(ctx)
	if err != nil {
		return err
	}
	if err := s.patchPipeline(ctx, name, brokenPipeline); err != nil {
		return err
	}
	same := func(revision string) bool { return revision == good }
	if _, err := s.awaitRevision(ctx, same, 0); err != nil {
		return err
	}
	s.say("a bad pipeline is refused everywhere")
	if err := s.makes(ctx, "e2e"); err != nil {
		return err
	}
	if err := s.patchPipeline(ctx, name, text); err != nil {
		return err
	}
	if _, err := s.awaitRevision(ctx, same, 1); err != nil {
		return fmt.Errorf("mended: %w", err)
	}
	return nil
}

// pipelineMap returns the release's ConfigMap with the pipeline, and the pipeline.
func (s *harness) pipelineMap(ctx context.Context) (name, text string, err error) {
	var maps list[configMap]
	if err := s.kube.get(ctx, &maps, "configmaps", "-l", "app.kubernetes.io/instance="+s.helm.release); err != nil {
		return "", "", err
	}
	for _, m := range maps.Items {
		if text := m.Data[pipelineKey]; text != "" {
			return m.Metadata.Name, text, nil
		}
	}
	return "", "", errors.New("no ConfigMap has a pipeline")
}

func (s *harness) patchPipeline(ctx context.Context, name, text string) error {
	patch, err := json.Marshal(map[string]any{"data": map[string]string{pipelineKey: text}})
	if err != nil {
		return err
	}
	_, err = s.kube.do(ctx, "patch", "configmap", name, "--type=merge", "-p", string(patch))
	return err
}

// ours returns the pods of api and worker.
func (s *harness) ours(ctx context.Context) ([]pod, error) {
	workers, err := s.pods(ctx, "worker")
	if err != nil {
		return nil, err
	}
	apis, err := s.pods(ctx, "api")
	return append(workers, apis...), err
}

// running names our pods and how often each has restarted.
func (s *harness) running(ctx context.Context) ([]string, error) {
	pods, err := s.ours(ctx)
	var names []string
	for _, p := range pods {
		names = append(names, fmt.Sprintf("%s (%d)", p.Metadata.Name, p.restarts()))
	}
	slices.Sort(names)
	return names, err
}

// revision returns the revision of the pipeline that is in force in all our pods, the last reload of each having had success
// or not: 1 or 0.
func (s *harness) revision(ctx context.Context, success float64) (string, error) {
	pods, err := s.ours(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, p := range pods {
		text, err := s.metrics(ctx, p)
		if err != nil {
			return "", err
		}
		revision, reload := pipelineMetrics(text)
		switch {
		case revision == "":
			return "", fmt.Errorf("%s tells no revision", p.Metadata.Name)
		case reload != success:
			return "", fmt.Errorf("%s: vitrine_pipeline_reload_success is %v", p.Metadata.Name, reload)
		case found != "" && found != revision:
			return "", fmt.Errorf("%s has %s, others %s", p.Metadata.Name, revision, found)
		}
		found = revision
	}
	if found == "" {
		return "", errors.New("there is no pod")
	}
	return found, nil
}

// awaitRevision waits until a wanted revision is in force everywhere.
func (s *harness) awaitRevision(ctx context.Context, wanted func(string) bool, success float64) (string, error) {
	var found string
	err := until(ctx, "a revision", syncLimit, 3*time.Second, func(ctx context.Context) (err error) {
		if found, err = s.revision(ctx, success); err != nil {
			return err
		}
		if !wanted(found) {
			return fmt.Errorf("%s is in force", found)
		}
		return nil
	})
	return found, err
}

// pipelineMetrics reads the revision in force, and whether the last reload had success, out of metrics.
func pipelineMetrics(text string) (revision string, success float64) {
	for _, line := range samples(text, "vitrine_pipeline_revision_info") {
		if line.value == 1 {
			_, rest, _ := strings.Cut(line.labels, `revision="`)
			revision, _, _ = strings.Cut(rest, `"`)
		}
	}
	for _, line := range samples(text, "vitrine_pipeline_reload_success") {
		success = line.value
	}
	return revision, success
}

// makes is nil if a new product gets exactly one rendition of each picture, called name.
func (s *harness) makes(ctx context.Context, name string) error {
	t, err := s.burst(ctx, "-products", "4", "-wait", "2m")
	if err != nil {
		return err
	}
	if !slices.Equal(t.Renditions, []string{name}) {
		return fmt.Errorf("new pictures have the renditions %v, want %s", t.Renditions, name)
	}
	return nil
}
