package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// component selects the release's pods of one kind.
func (s *harness) component(name string) string {
	return fmt.Sprintf("app.kubernetes.io/instance=%s,app.kubernetes.io/component=%s", s.helm.release, name)
}

// pods returns the pods of a component that have not terminated.
func (s *harness) pods(ctx context.Context, component string) ([]pod, error) {
	return s.kube.pods(ctx, s.component(component))
}

// api returns the URL of the API's Service.
func (s *harness) api() string { return fmt.Sprintf("http://%s", s.host(s.fullname()+"-api")) }

// entry returns the URL at which clients reach the API: that of the ingress controller, if there is one.
func (s *harness) entry() string {
	if s.ingress != "" {
		return "http://" + s.ingress
	}
	return s.api()
}

// fullname returns the prefix of the names of the chart's objects.
func (s *harness) fullname() string {
	if strings.Contains(s.helm.release, chartName) {
		return s.helm.release
	}
	return s.helm.release + "-" + chartName
}

const chartName = "vitrine"

// deploy is helm.deploy, and also waits until replaced pods have terminated.
func (s *harness) deploy(ctx context.Context, changes ...string) error {
	if err := s.helm.deploy(ctx, changes...); err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

func (s *harness) awaitReady(ctx context.Context) error {
	return until(ctx, "the release to be complete", 5*time.Minute, time.Second, s.checkReady)
}

// checkReady returns nil if all replicas of the release's Deployments and StatefulSets are ready and no pod is terminating.
func (s *harness) checkReady(ctx context.Context) error {
	selector := "app.kubernetes.io/instance=" + s.helm.release
	var workloads list[workload]
	if err := s.kube.get(ctx, &workloads, "deployments,statefulsets", "-l", selector); err != nil {
		return err
	}
	for _, w := range workloads.Items {
		if !w.complete() {
			return fmt.Errorf("%s %s has %d of %d pods ready", w.Kind, w.Metadata.Name, w.Status.ReadyReplicas, *w.Spec.Replicas)
		}
	}
	pods, err := s.kube.pods(ctx, selector)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if !p.ready() {
			return fmt.Errorf("pod %s is %s, not ready", p.Metadata.Name, p.Status.Phase)
		}
	}
	return nil
}

// workers waits for exactly n workers, all ready and none terminating.
func (s *harness) workers(ctx context.Context, n int, limit time.Duration) ([]pod, error) {
	var pods []pod
	err := until(ctx, fmt.Sprintf("%d workers", n), limit, time.Second, func(ctx context.Context) (err error) {
		if pods, err = s.pods(ctx, "worker"); err != nil {
			return err
		}
		ready := countReady(pods)
		if len(pods) != n || ready != n {
			return fmt.Errorf("there are %d, %d of them ready", len(pods), ready)
		}
		return nil
	})
	return pods, err
}

func countReady(pods []pod) int {
	ready := 0
	for _, p := range pods {
		if p.ready() {
			ready++
		}
	}
	return ready
}

// metrics reads a pod's metrics.
func (s *harness) metrics(ctx context.Context, p pod) (string, error) {
	return s.admin(ctx, p, "/metrics")
}

// admin sends a GET to a pod's admin port.
func (s *harness) admin(ctx context.Context, p pod, path string) (string, error) {
	port := p.port("admin")
	if port == 0 {
		return "", fmt.Errorf("pod %s has no admin port", p.Metadata.Name)
	}
	return s.kube.exec(ctx, nil, "get", "http://"+net.JoinHostPort(p.Status.PodIP, strconv.Itoa(port))+path)
}

// sample is one line of metrics.
type sample struct {
	labels string // unparsed
	value  float64
}

// samples returns the lines of one metric.
func samples(metrics, name string) []sample {
	var found []sample
	for line := range strings.SplitSeq(metrics, "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		labels, value := "", rest
		if end := strings.LastIndexByte(rest, '}'); end >= 0 {
			labels, value = rest[1:end], rest[end+1:]
		}
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		if v, err := strconv.ParseFloat(fields[0], 64); err == nil {
			found = append(found, sample{labels, v})
		}
	}
	return found
}

// checkLogs returns the number of lines of a log. A line that is not a JSON object is an error.
func checkLogs(text string) (int, error) {
	lines := 0
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			continue
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			return lines, fmt.Errorf("line is not JSON: %.300s", line)
		}
		lines++
	}
	return lines, nil
}

// objects lists all objects in the namespace except the helper's and events, as kind/name.
func (s *harness) objects(ctx context.Context) ([]string, error) {
	kinds, err := s.kinds(ctx, "--namespaced=true")
	if err != nil {
		return nil, err
	}
	text, err := s.kube.do(ctx, "get", kinds, "-l", "!"+helperLabel, "-o", "name")
	return strings.Fields(text), err
}

// clusterObjects lists the release's objects that are not in a namespace.
func (s *harness) clusterObjects(ctx context.Context) ([]string, error) {
	kinds, err := s.kinds(ctx, "--namespaced=false")
	if err != nil {
		return nil, err
	}
	text, err := s.kube.do(ctx, "get", kinds, "-l", "app.kubernetes.io/instance="+s.helm.release, "-o", "name")
	return strings.Fields(text), err
}

// kinds returns the kinds that can be listed and deleted, separated by commas for kubectl get.
func (s *harness) kinds(ctx context.Context, flag string) (string, error) {
	text, err := s.kube.do(ctx, "api-resources", "--verbs=list,delete", flag, "-o", "name")
	kinds := slices.DeleteFunc(strings.Fields(text), func(kind string) bool {
		return strings.HasPrefix(kind, "events")
	})
	if err == nil && len(kinds) == 0 {
		err = errors.New("the cluster lists no kinds of objects")
	}
	return strings.Join(kinds, ","), err
}
