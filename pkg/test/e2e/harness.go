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
	stages             []stage
	kubectl, helm      string
	promtool           string
	keep               bool
}

func (o *options) parse(flags *flag.FlagSet, args []string) error {
	flags.StringVar(&o.skaffold, "skaffold", "skaffold.yaml", "what is built and deployed")
	flags.StringVar(&o.document, "o", "docs/e2e.md", "document to write the summary into")
	flags.StringVar(&o.namespace, "namespace", "vitrine-e2e", "namespace to install into; it is made, and removed in the end")
	flags.StringVar(&o.tag, "tag", "dev", "tag of the images of skaffold.yaml's artifacts")
	flags.StringVar(&o.helper, "helper", "vitrine-e2e:dev", "image of this program")
	flags.StringVar(&o.standin, "standin", "vitrine-worker-standin:dev", "image of the worker whose codec sleeps")
	set := flags.String("set", "", "more values for helm's --set, separated by white space")
	names := flags.String("stages", stageNames(), "the stages to run")
	flags.StringVar(&o.kubectl, "kubectl", "kubectl", "program")
	flags.StringVar(&o.helm, "helm", "helm", "program")
	flags.StringVar(&o.promtool, "promtool", "promtool", "program")
	flags.BoolVar(&o.keep, "keep", false, "leave the namespace, also after success")
	err := flags.Parse(args)
	if err != nil {
		return err
	}
	o.set = strings.Fields(*set)
	o.stages, err = stagesNamed(*names)
	return err
}

// stageNames is the names of all stages in their order, with commas.
func stageNames() string {
	var names []string
	for _, s := range stages {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// stagesNamed returns the stages whose names are in list, which has commas, each once and in the order of stages.
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
		return nil, fmt.Errorf("there is no stage %q; the stages are %s", name, stageNames())
	}
	return found, nil
}

// harness is the release that the stages check, and what they reach it with.
type harness struct {
	options
	sys      system
	out      io.Writer
	kube     kube
	helm     helm
	images   []string // of ours, without tags
	versions string   // of the cluster, for the document
	before   []string // objects that stood in the namespace before the release
}

// stage checks one of the chart's promises.
type stage struct {
	name  string // in flags and in the document
	title string
	check func(s *harness, ctx context.Context) (seen, error)
}

// seen is what a stage has seen, in one line.
type seen struct {
	line   string
	ratios []ratio
}

// ratio is a number that a script may read: ours divided by what it should be.
type ratio struct {
	name  string
	value float64
}

// install is the name of the stage that installs the release.
const install = "install"

// autoscaling is the name of the stage that needs KEDA and the worker whose codec sleeps.
const autoscaling = "autoscaling"

// stages are all stages, in their order.
var stages = []stage{
	{install, "install, test, post, download", (*harness).checkInstall},
	{autoscaling, "KEDA scales the workers", (*harness).checkAutoscaling},
	{"healing", "upgrades and dead pods under load", (*harness).checkHealing},
	{"reload", "the pipeline changes without a restart", (*harness).checkReload},
	{"upgrade", "upgrade, rollback, uninstall", (*harness).checkUpgrade},
}

// runAll runs the stages that are asked for.
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
	err = s.check(ctx, func(done stage, what seen) {
		summary.put(done, what, s.versions, commit, s.sys.now())
	})
	if err != nil {
		s.say("the release stays for inspection: kubectl -n %s get pods; helm -n %[1]s status %s", s.namespace, s.helm.release)
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

// check runs the stages in their order, up to the first that fails. The stage install installs the release; without it,
// the release is installed before.
func (s *harness) check(ctx context.Context, passed func(done stage, what seen)) error {
	if !s.runs(install) {
		if err := s.deploy(ctx); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	for _, one := range s.stages {
		s.say("stage %s: %s", one.name, one.title)
		began := s.sys.now()
		what, err := one.check(s, ctx)
		if err != nil {
			return fmt.Errorf("stage %s, %s: %w", one.name, one.title, err)
		}
		fmt.Fprintf(s.out, "stage %s passed in %s: %s\n", one.name, s.sys.now().Sub(began).Round(time.Second), what.line)
		passed(one, what)
	}
	return nil
}

// runs reports whether the stage with this name is asked for.
func (o *options) runs(name string) bool {
	return slices.ContainsFunc(o.stages, func(s stage) bool { return s.name == name })
}

// say tells how far it has come.
func (s *harness) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%s  %s\n", s.sys.now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// commit names the commit that is checked, or is "unknown".
func (s *harness) commit(ctx context.Context) string {
	text, err := s.sys.run(ctx, command{
		name: "git", args: []string{"describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"},
	})
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(text)
}

// prepare looks for everything that the stages need, makes the namespace and starts the helper's pods.
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
		files: plan.valuesFiles, settings: append(settings, s.set...), overlay: overlay(s.host(proxyPod)),
	}
	if err := s.lookAround(ctx, plan); err != nil {
		return err
	}
	if err := s.makeNamespace(ctx); err != nil {
		return fmt.Errorf("make namespace %s: %w", s.namespace, err)
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

// lookAround is an error if the cluster lacks an image, or KEDA, and reads the versions.
func (s *harness) lookAround(ctx context.Context, p plan) error {
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
	if lack := lacking(nodes.Items, wanted); len(lack) > 0 {
		return fmt.Errorf("no node has %s: build them with make images and images-e2e, and load them into the cluster",
			strings.Join(lack, ", "))
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

// versions is one line on what the stages ran with.
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

// makeNamespace makes the namespace, which forbids whatever is not "restricted". One that an earlier run has left is removed
// first; one that is somebody else's is an error.
func (s *harness) makeNamespace(ctx context.Context) error {
	text, err := s.kube.do(ctx, "get", "namespace", s.namespace, "--ignore-not-found", "-o", "json")
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) != "" {
		var there namespace
		if err := json.Unmarshal([]byte(text), &there); err != nil {
			return err
		}
		if there.Metadata.Labels[helperLabel] == "" {
			return errors.New("it is there, and not by this program")
		}
		s.say("removing what an earlier run has left")
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

// overlay is the one value that the stages need beside those of skaffold.yaml: the Ingress' host is the proxy's Service, so
// that URLs lead there.
func overlay(host string) string {
	return fmt.Sprintf("ingress: {host: %s}\n", host)
}
