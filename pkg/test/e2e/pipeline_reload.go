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

	// newRenditions differs from every default pipeline.
	newRenditions = `[{"name":"e2e","width":64,"formats":[{"format":"jpeg","quality":70}]}]`

	// brokenPipeline is invalid: its width is negative.
	brokenPipeline = "apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: default}\n" +
		"spec: {renditions: [{name: x, width: -1}]}\n"

	// syncLimit is the time in which a change must reach a pod. The kubelet syncs once a minute and caches for as long.
	syncLimit = 4 * time.Minute
)

// checkReload checks that running pods adopt a valid pipeline and reject an invalid one.
func (s *harness) checkReload(ctx context.Context) (stageResult, error) {
	two := []string{"--set", "worker.autoscaling.minReplicas=2", "--set", "worker.replicas=2"} // with KEDA and without
	if err := s.deploy(ctx, two...); err != nil {
		return stageResult{}, err
	}
	if _, err := s.workers(ctx, 2, 3*time.Minute); err != nil {
		return stageResult{}, err
	}
	before, err := s.restartCounts(ctx)
	if err != nil {
		return stageResult{}, err
	}
	old, err := s.revision(ctx, 1)
	if err != nil {
		return stageResult{}, err
	}

	start := s.sys.now()
	if err := s.deploy(ctx, append(two, "--set-json", "pipeline.renditions="+newRenditions)...); err != nil {
		return stageResult{}, err
	}
	changed, err := s.awaitRevision(ctx, func(revision string) bool { return revision != old }, 1)
	if err != nil {
		return stageResult{}, fmt.Errorf("valid pipeline: %w", err)
	}
	elapsed := s.sys.now().Sub(start)
	s.logf("all pods have the new pipeline after %.0f s", elapsed.Seconds())
	if err := s.checkRenditions(ctx, "e2e"); err != nil {
		return stageResult{}, fmt.Errorf("valid pipeline: %w", err)
	}

	if err := s.breakPipeline(ctx, changed); err != nil {
		return stageResult{}, fmt.Errorf("invalid pipeline: %w", err)
	}
	after, err := s.restartCounts(ctx)
	if err != nil {
		return stageResult{}, err
	}
	if !slices.Equal(before, after) {
		return stageResult{}, fmt.Errorf("pods have restarted: before %v, after %v", before, after)
	}
	if err := s.deploy(ctx); err != nil {
		return stageResult{}, err
	}
	return stageResult{line: fmt.Sprintf("a changed pipeline is in force in %d pods after %.0f s; "+
		"with an invalid one the last valid one stays in force and the metrics report it; no pod restarted",
		len(after), elapsed.Seconds())}, nil
}

// breakPipeline writes an invalid pipeline into the ConfigMap, checks that the revision good stays in force, and restores
// the valid pipeline.
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
	s.logf("all pods reject an invalid pipeline")
	if err := s.checkRenditions(ctx, "e2e"); err != nil {
		return err
	}
	if err := s.patchPipeline(ctx, name, text); err != nil {
		return err
	}
	if _, err := s.awaitRevision(ctx, same, 1); err != nil {
		return fmt.Errorf("after the correction: %w", err)
	}
	return nil
}

// pipelineMap returns the name and the content of the release's ConfigMap with the pipeline.
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

// programPods returns the pods of api and worker.
func (s *harness) programPods(ctx context.Context) ([]pod, error) {
	workers, err := s.pods(ctx, "worker")
	if err != nil {
		return nil, err
	}
	apis, err := s.pods(ctx, "api")
	return append(workers, apis...), err
}

// restartCounts returns the names of the api and worker pods, each with its number of restarts.
func (s *harness) restartCounts(ctx context.Context) ([]string, error) {
	pods, err := s.programPods(ctx)
	var names []string
	for _, p := range pods {
		names = append(names, fmt.Sprintf("%s (%d)", p.Metadata.Name, p.restarts()))
	}
	slices.Sort(names)
	return names, err
}

// revision returns the pipeline revision that all api and worker pods have. success is the required result of their last
// reload: 1 or 0.
func (s *harness) revision(ctx context.Context, success float64) (string, error) {
	pods, err := s.programPods(ctx)
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
			return "", fmt.Errorf("%s has no revision", p.Metadata.Name)
		case reload != success:
			return "", fmt.Errorf("%s: vitrine_pipeline_reload_success is %v", p.Metadata.Name, reload)
		case found != "" && found != revision:
			return "", fmt.Errorf("%s has %s, others %s", p.Metadata.Name, revision, found)
		}
		found = revision
	}
	if found == "" {
		return "", errors.New("no pods")
	}
	return found, nil
}

// awaitRevision waits until all pods have the same revision and wanted accepts it.
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

// pipelineMetrics returns the pipeline revision and the result of the last reload, 1 or 0, from metrics.
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

// checkRenditions returns nil if the images of new products have exactly one rendition, with this name.
func (s *harness) checkRenditions(ctx context.Context, name string) error {
	t, err := s.burst(ctx, "-products", "4", "-wait", "2m")
	if err != nil {
		return err
	}
	if !slices.Equal(t.Renditions, []string{name}) {
		return fmt.Errorf("new images have the renditions %v, want %s", t.Renditions, name)
	}
	return nil
}
