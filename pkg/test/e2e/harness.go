package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are the command's flags.
type options struct {
	skaffold, document string
	namespace          string
	tag                string
	helper, standin    string // images
	set                []string
	ingress            string // host of the ingress controller
	stages             []stage
	kubectl, helm      string
	promtool           string
	keep               bool
}

func (o *options) parse(flags *flag.FlagSet, args []string) error {
	flags.StringVar(&o.skaffold, "skaffold", "skaffold.yaml", "skaffold configuration")
	flags.StringVar(&o.document, "o", "docs/e2e.md", "document to write the summary into")
	flags.StringVar(&o.namespace, "namespace", "vitrine-e2e", "namespace to install into, created and removed by the run")
	flags.StringVar(&o.tag, "tag", "dev", "tag of the images of skaffold.yaml's artifacts")
	flags.StringVar(&o.helper, "helper", "vitrine-e2e:dev", "container image of this program")
	flags.StringVar(&o.standin, "standin", "vitrine-worker-standin:dev", "container image of the worker whose codec sleeps")
	set := flags.String("set", "", "more values for helm's --set, separated by white space")
	flags.StringVar(&o.ingress, "ingress", "", "host by which pods reach the ingress controller; empty: the run's own proxy")
	names := flags.String("stages", strings.TrimSuffix(stageNames(), ","+failover), "the stages to run")
	flags.StringVar(&o.kubectl, "kubectl", "kubectl", "program")
	flags.StringVar(&o.helm, "helm", "helm", "program")
	flags.StringVar(&o.promtool, "promtool", "promtool", "program")
	flags.BoolVar(&o.keep, "keep", false, "keep the namespace after success")
	err := flags.Parse(args)
	if err != nil {
		return err
	}
	o.set = strings.Fields(*set)
	if o.stages, err = stagesNamed(*names); err != nil {
		return err
	}
	if o.runs(failover) && o.runs(outage) {
		return fmt.Errorf("stages %s and %s need different servers: run one after the other", outage, failover)
	}
	return nil
}

// stageNames returns the names of all stages in their order, separated by commas.
func stageNames() string {
	var names []string
	for _, s := range stages {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// stagesNamed returns the stages of a comma-separated list, without duplicates and in the order of stages.
func stagesNamed(list string) ([]stage, error) {
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var found []stage
	for _, s := range stages {
		if wanted[s.name] {
			found = append(found, s)
			delete(wanted, s.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("unknown stage %q; the stages are %s", name, stageNames())
	}
	return found, nil
}

// harness holds the release under test and the access to it.
type harness struct {
	options
	sys      system
	out      io.Writer
	kube     kube
	helm     helm
	images   []string // of api and worker, without tags
	versions string   // of the cluster, for the document
	before   []string // objects in the namespace before the release
}

// stage is one part of the test.
type stage struct {
	name  string // in flags and in the document
	title string
	check func(s *harness, ctx context.Context) (stageResult, error)
}

// stageResult describes the result of a passed stage in one line.
type stageResult struct {
	line   string
	ratios []ratio
}

// ratio is a measurement divided by its goal, for scripts.
type ratio struct {
	name  string
	value float64
}

// install is the name of the stage that installs the release.
const install = "install"

// autoscaling is the name of the stage that needs KEDA and the worker whose codec sleeps.
const autoscaling = "autoscaling"

// Names of the stages that take Postgres away. A run with failover has a Cluster of CloudNativePG.
const (
	outage   = "outage"
	failover = "failover"
)

// stages are all stages in their order. The last one runs only if it is selected.
var stages = []stage{
	{install, "install, test, post, download", (*harness).checkInstall},
	{autoscaling, "KEDA scales the workers", (*harness).checkAutoscaling},
	{"healing", "upgrades and killed pods under load", (*harness).checkHealing},
	{outage, "Postgres stopped under load", (*harness).checkOutage},
	{"reload", "the pipeline changes without a restart", (*harness).checkReload},
	{"upgrade", "upgrade, rollback, uninstall", (*harness).checkUpgrade},
	{failover, "the primary of Postgres deleted under load", (*harness).checkFailover},
}

// runAll runs the selected stages and writes their results to the document.
func runAll(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer, sys system) error {
	s := &harness{sys: sys, out: out}
	if err := s.options.parse(flags, args); err != nil {
		return err
	}
	document, err := os.ReadFile(s.document)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	summary, err := readSummary(document)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.document, err)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	commit := s.commit(ctx)
	err = s.check(ctx, func(done stage, result stageResult) {
		summary.put(done, result, s.versions, commit, s.sys.now())
	})
	if err != nil {
		s.logf("the release stays for inspection: kubectl -n %s get pods; helm -n %[1]s status %s", s.namespace, s.helm.release)
		return err
	}
	document, err = summary.write(document)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.document, document, 0o644); err != nil { //nolint:gosec // a document, for everyone
		return fmt.Errorf("write document: %w", err)
	}
	if !s.keep {
		if _, err := s.kube.do(ctx, "delete", "namespace", s.namespace, "--wait=false"); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\n%s", summary.ratioLines())
	return nil
}

// check runs the stages up to the first that fails. If the stage install is not selected, it installs the release first.
func (s *harness) check(ctx context.Context, passed func(done stage, result stageResult)) error {
	if !s.runs(install) {
		if err := s.deploy(ctx); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	for _, one := range s.stages {
		s.logf("stage %s: %s", one.name, one.title)
		start := s.sys.now()
		result, err := one.check(s, ctx)
		if err != nil {
			return fmt.Errorf("stage %s, %s: %w", one.name, one.title, err)
		}
		fmt.Fprintf(s.out, "stage %s passed in %s: %s\n", one.name, s.sys.now().Sub(start).Round(time.Second), result.line)
		passed(one, result)
	}
	return nil
}

// runs reports whether the stage is selected.
func (o *options) runs(name string) bool {
	return slices.ContainsFunc(o.stages, func(s stage) bool { return s.name == name })
}

// logf prints a line with the time.
func (s *harness) logf(format string, args ...any) {
	fmt.Fprintf(s.out, "%s  %s\n", s.sys.now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// commit returns the abbreviated commit under test, or "unknown".
func (s *harness) commit(ctx context.Context) string {
	text, err := s.sys.run(ctx, command{
		name: "git", args: []string{"describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"},
	})
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(text)
}

// prepare checks the cluster, creates the namespace and starts the helper's pods.
func (s *harness) prepare(ctx context.Context) error {
	source, err := os.ReadFile(s.skaffold)
	if err != nil {
		return err
	}
	plan, err := readPlan(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.skaffold, err)
	}
	settings, err := plan.settings(s.tag)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.skaffold, err)
	}
	s.images = plan.images
	s.kube = kube{runner: s.sys, program: s.kubectl, namespace: s.namespace}
	s.helm = helm{
		runner: s.sys, program: s.options.helm, namespace: s.namespace, release: plan.release, chart: plan.chart,
		files: plan.valuesFiles, settings: append(settings, s.set...), overlay: s.overlay(),
	}
	if err := s.checkCluster(ctx, plan); err != nil {
		return err
	}
	if err := s.createNamespace(ctx); err != nil {
		return fmt.Errorf("create namespace %s: %w", s.namespace, err)
	}
	for _, h := range []helper{
		{Name: clientPod, Args: args{"idle"}},
		{Name: sourcePod, Args: args{"source", "-addr", ":8081"}, Port: 8081, Health: "/healthz"},
	} {
		if err := s.startHelper(ctx, h); err != nil {
			return fmt.Errorf("start helper: %w", err)
		}
	}
	s.before, err = s.objects(ctx)
	return err
}

// checkCluster returns an error if the cluster lacks a container image or KEDA. It sets s.versions.
func (s *harness) checkCluster(ctx context.Context, p plan) error {
	wanted := []string{s.options.helper}
	for _, image := range p.images {
		wanted = append(wanted, image+":"+s.tag)
	}
	if s.runs(autoscaling) {
		wanted = append(wanted, s.standin)
		if _, err := s.kube.do(ctx, "get", "crd", "scaledobjects.keda.sh"); err != nil {
			return fmt.Errorf("look for KEDA: %w", err)
		}
	}
	var nodes list[node]
	if err := s.kube.get(ctx, &nodes, "nodes"); err != nil {
		return fmt.Errorf("look for a cluster: %w", err)
	}
	if missing := missingImages(nodes.Items, wanted); len(missing) > 0 {
		return fmt.Errorf("no node has %s: build them with make images and images-e2e, and load them into the cluster",
			strings.Join(missing, ", "))
	}
	text, err := s.kube.do(ctx, "version", "-o", "json")
	if err != nil {
		return err
	}
	helmVersion, err := s.helm.do(ctx, "", "version", "--short")
	if err != nil {
		return err
	}
	var kedas list[pod]
	if err := s.kube.get(ctx, &kedas, "pods", "-A", "-l", "app=keda-operator"); err != nil {
		return err
	}
	s.versions = versions(text, helmVersion, kedas.Items, nodes.Items)
	return nil
}

// versions returns the versions and the size of the cluster in one line.
func versions(kubectlJSON, helmVersion string, kedas []pod, nodes []node) string {
	var version struct {
		Server struct {
			GitVersion string `json:"gitVersion"`
		} `json:"serverVersion"`
	}
	if json.Unmarshal([]byte(kubectlJSON), &version) != nil || version.Server.GitVersion == "" {
		version.Server.GitVersion = "unknown"
	}
	keda := "unknown"
	for _, p := range kedas {
		for _, c := range p.Spec.Containers {
			if i := strings.LastIndexByte(c.Image, ':'); i >= 0 {
				keda = c.Image[i+1:]
			}
		}
	}
	cpus := 0
	for _, n := range nodes {
		if c, err := strconv.Atoi(n.Status.Capacity["cpu"]); err == nil {
			cpus += c
		}
	}
	helmVersion, _, _ = strings.Cut(strings.TrimSpace(helmVersion), "+")
	return fmt.Sprintf("Kubernetes %s, nodes: %d, CPUs: %d, Helm %s, KEDA %s",
		version.Server.GitVersion, len(nodes), cpus, helmVersion, keda)
}

// createNamespace creates the namespace, which enforces the Pod Security level "restricted". It first removes the namespace
// of an earlier run. A namespace without the helper's label is an error.
func (s *harness) createNamespace(ctx context.Context) error {
	text, err := s.kube.do(ctx, "get", "namespace", s.namespace, "--ignore-not-found", "-o", "json")
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) != "" {
		var existing namespace
		if err := json.Unmarshal([]byte(text), &existing); err != nil {
			return err
		}
		if existing.Metadata.Labels[helperLabel] == "" {
			return errors.New("it exists and was not created by this program")
		}
		s.logf("removing the namespace of an earlier run")
		if _, err := s.kube.do(ctx, "delete", "namespace", s.namespace, "--wait", "--timeout=5m"); err != nil {
			return err
		}
	}
	return s.kube.apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels:
    %s: "true"
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
`, s.namespace, helperLabel))
}

// overlay returns values in addition to those of skaffold.yaml: the Ingress' host is the ingress controller's or the
// proxy's Service, so that URLs in responses lead to it.
func (s *harness) overlay() string {
	host := s.ingress
	if host == "" {
		host = s.host(proxyPod)
	}
	values := fmt.Sprintf("ingress: {host: %s}\n", host)
	if s.runs(failover) {
		values += "postgres: {dev: {enabled: false}, operator: {enabled: true, instances: 3, storage: 1Gi}}\n"
	}
	return values
}
