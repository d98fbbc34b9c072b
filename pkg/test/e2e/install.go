package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// checkInstall installs the release, runs the chart's tests, and creates a product through the Ingress's rules.
func (s *harness) checkInstall(ctx context.Context) (stageResult, error) {
	start := s.sys.now()
	if err := s.deploy(ctx); err != nil {
		return stageResult{}, fmt.Errorf("install: %w", err)
	}
	elapsed := s.sys.now().Sub(start)
	s.logf("installed in %.0f s", elapsed.Seconds())
	if text, err := s.helm.test(ctx); err != nil {
		logs, _ := s.kube.do(ctx, "logs", "-l", s.component("test"), "--all-containers", "--prefix")
		return stageResult{}, fmt.Errorf("helm test: %w\n%s\n%s", err, lastLines(text, 30), lastLines(logs, 30))
	}
	s.logf("helm test passes")
	urls, err := s.throughIngress(ctx)
	if err != nil {
		return stageResult{}, err
	}
	s.logf("a product's %d URLs download through the ingress's rules", urls)
	scraped, err := s.lintMetrics(ctx)
	if err != nil {
		return stageResult{}, err
	}
	lines, err := s.readLogs(ctx)
	if err != nil {
		return stageResult{}, err
	}
	return stageResult{line: fmt.Sprintf("installed into a restricted namespace in %.0f s; helm test passes; a product posted "+
		"through the ingress's rules is ready and all its %d URLs download as given; promtool takes the metrics of %d pods; "+
		"%d log lines are JSON", elapsed.Seconds(), urls, scraped, lines)}, nil
}

// throughIngress posts a product through the ingress controller, or else through a proxy with the rules of the release's
// ingresses, and downloads every URL of its JSON. The bucket's listing must not be accessible there.
func (s *harness) throughIngress(ctx context.Context) (int, error) {
	var ingresses list[ingress]
	if err := s.kube.get(ctx, &ingresses, "ingresses", "-l", "app.kubernetes.io/instance="+s.helm.release); err != nil {
		return 0, err
	}
	var services list[service]
	if err := s.kube.get(ctx, &services, "services"); err != nil {
		return 0, err
	}
	routes, err := routesOf(ingresses.Items, services.Items)
	if err != nil {
		return 0, err
	}
	if len(routes) < 2 {
		return 0, fmt.Errorf("the ingresses have %d paths, want those of the API and the images", len(routes))
	}
	front := s.entry()
	if s.ingress == "" {
		front = s.url(proxyPod)
		if err := s.startProxy(ctx, routes); err != nil {
			return 0, fmt.Errorf("start proxy: %w", err)
		}
	}
	t, err := s.client(ctx, nil, "burst", "-api", front, "-images", "2", "-wait", "3m", "-download")
	if err != nil {
		return 0, err
	}
	if err := t.checkAll(); err != nil {
		return 0, fmt.Errorf("post through the ingress's rules: %w", err)
	}
	for _, path := range []string{"/media", "/media/", "/media/?list-type=2"} {
		if _, err := s.kube.exec(ctx, nil, "get", "-want", "403,404", front+path); err != nil {
			return 0, fmt.Errorf("the bucket must not be listed: %w", err)
		}
	}
	return t.Downloaded, nil
}

// startProxy starts the proxy with these routes.
func (s *harness) startProxy(ctx context.Context, routes []route) error {
	text, err := json.Marshal(routes)
	if err != nil {
		return err
	}
	return s.startHelper(ctx, helper{
		Name: proxyPod, Args: args{"proxy", "-addr", ":8080", "-routes", string(text)}, Port: 8080, Health: "/e2e/healthz",
	})
}

// lintMetrics checks the metrics of every api and worker pod with promtool.
func (s *harness) lintMetrics(ctx context.Context) (int, error) {
	n := 0
	for _, component := range []string{"api", "worker"} {
		pods, err := s.pods(ctx, component)
		if err != nil {
			return 0, err
		}
		for _, p := range pods {
			text, err := s.metrics(ctx, p)
			if err != nil {
				return 0, err
			}
			lint := command{name: s.promtool, args: []string{"check", "metrics"}, stdin: strings.NewReader(text)}
			if output, err := s.sys.run(ctx, lint); err != nil {
				return 0, fmt.Errorf("metrics of %s: %w %s", p.Metadata.Name, err, output)
			}
			n++
		}
	}
	if n < 2 {
		return 0, fmt.Errorf("only %d pods have metrics", n)
	}
	return n, nil
}

// readLogs checks the logs of all containers of api, worker and setup, and returns the number of lines.
func (s *harness) readLogs(ctx context.Context) (int, error) {
	total := 0
	for _, component := range []string{"api", "worker", "setup"} {
		var pods list[pod]
		if err := s.kube.get(ctx, &pods, "pods", "-l", s.component(component)); err != nil {
			return 0, err
		}
		if len(pods.Items) == 0 {
			return 0, fmt.Errorf("no pod of %s", component)
		}
		for _, p := range pods.Items {
			for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
				text, err := s.kube.do(ctx, "logs", p.Metadata.Name, "-c", c.Name)
				if err != nil {
					return 0, err
				}
				lines, err := checkLogs(text)
				if err != nil {
					return 0, fmt.Errorf("log of %s, %s: %w", p.Metadata.Name, c.Name, err)
				}
				total += lines
			}
		}
	}
	return total, nil
}
