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

// options are what whoever runs the proofs may choose.
type options struct {
	skaffold, document string
	namespace          string
	tag                string
	helper, standin    string // images
	set                []string
	proofs             []int
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
	proofs := flags.String("proofs", "1,2,3,4,5", "the proofs to show")
	flags.StringVar(&o.kubectl, "kubectl", "kubectl", "program")
	flags.StringVar(&o.helm, "helm", "helm", "program")
	flags.StringVar(&o.promtool, "promtool", "promtool", "program")
	flags.BoolVar(&o.keep, "keep", false, "leave the namespace, also after success")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.set = strings.Fields(*set)
	for text := range strings.SplitSeq(*proofs, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > len(proofTable) {
			return fmt.Errorf("there is no proof %q", text)
		}
		o.proofs = append(o.proofs, n)
	}
	slices.Sort(o.proofs)
	o.proofs = slices.Compact(o.proofs)
	return nil
}

// stage is the release that proofs are shown on, and what they reach it with.
type stage struct {
	options
	sys      system
	out      io.Writer
	kube     kube
	helm     helm
	images   []string // of ours, without tags
	versions string   // of the cluster, for the document
	before   []string // objects that stood in the namespace before the release
}

// proof is one of the things to show. It returns what was seen, in one line.
type proof struct {
	name string
	show func(s *stage, ctx context.Context) (seen, error)
}

// seen is what a proof has shown.
type seen struct {
	line   string
	ratios []ratio
}

// ratio is a number that a script may read: ours divided by what it should be.
type ratio struct {
	name  string
	value float64
}

// proofTable has the proofs in their order; they are numbered from 1.
var proofTable = []proof{
	{"install, test, post, download", (*stage).showInstall},
	{"KEDA scales the workers", (*stage).showScaling},
	{"upgrades and dead pods under load", (*stage).showHealing},
	{"the pipeline changes without a restart", (*stage).showPipeline},
	{"upgrade, rollback, uninstall", (*stage).showUninstall},
}

// prove shows the proofs that are asked for.
func prove(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer, sys system) error {
	s := &stage{sys: sys, out: out}
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
	err = s.show(ctx, func(n int, shown seen) {
		summary.put(n, shown, s.versions, commit, s.sys.now())
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

// show runs the proofs in their order, up to the first that fails. The first proof installs the release; without it, that is
// done before.
func (s *stage) show(ctx context.Context, shown func(n int, what seen)) error {
	if s.proofs[0] != 1 {
		if err := s.deploy(ctx); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	for _, n := range s.proofs {
		p := proofTable[n-1]
		s.say("proof %d: %s", n, p.name)
		began := s.sys.now()
		what, err := p.show(s, ctx)
		if err != nil {
			return fmt.Errorf("proof %d, %s: %w", n, p.name, err)
		}
		fmt.Fprintf(s.out, "proof %d shown in %s: %s\n", n, s.sys.now().Sub(began).Round(time.Second), what.line)
		shown(n, what)
	}
	return nil
}

// say tells how far it has come.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%s  %s\n", s.sys.now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// commit names what is shown, as well as it is known.
func (s *stage) commit(ctx context.Context) string {
	text, err := s.sys.run(ctx, command{
		name: "git", args: []string{"describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"},
	})
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(text)
}

// prepare looks for everything that the proofs need, makes the namespace and starts the helper's pods.
func (s *stage) prepare(ctx context.Context) error {
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
func (s *stage) lookAround(ctx context.Context, p plan) error {
	wanted := []string{s.options.helper}
	for _, image := range p.images {
		wanted = append(wanted, image+":"+s.tag)
	}
	if slices.Contains(s.proofs, 2) {
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

// versions is one line on what the proofs are shown with.
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
func (s *stage) makeNamespace(ctx context.Context) error {
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

// overlay is the one value that the proofs need beside those of skaffold.yaml: the Ingress' host is the proxy's Service, so
// that URLs lead there.
func overlay(host string) string {
	return fmt.Sprintf("ingress: {host: %s}\n", host)
}
