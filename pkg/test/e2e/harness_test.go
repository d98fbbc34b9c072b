package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const skaffoldText = `
apiVersion: skaffold/v4beta13
kind: Config
build:
  artifacts:
    - {image: vitrine-api, docker: {dockerfile: Dockerfile.api}}
    - {image: vitrine-worker}
deploy:
  helm:
    releases:
      - name: vitrine
        chartPath: charts/vitrine
        valuesFiles: [charts/vitrine/values-dev.yaml]
        setValues: {log.level: info}
        setValueTemplates:
          api.image.repository: '{{.IMAGE_REPO_vitrine_api}}'
          api.image.tag: '{{.IMAGE_TAG_vitrine_api}}@{{.IMAGE_DIGEST_vitrine_api}}'
          worker.image.tag: '{{.IMAGE_TAG_vitrine_worker}}'
`

const documentText = "# Title\n\n" + beginMark + "\n\n| `reload` | other | x | y |\n\n| `old/ratio` | 0.50 |\n\n" +
	endMark + "\n\nthe rest\n"

// runStages runs the program on a fake cluster with a fake clock, and returns its output and the resulting document.
func runStages(t *testing.T, w runner, args ...string) (stdout, document string, err error) {
	t.Helper()
	dir := t.TempDir()
	path, config := filepath.Join(dir, "e2e.md"), filepath.Join(dir, "skaffold.yaml")
	must(t, os.WriteFile(path, []byte(documentText), 0o600))
	must(t, os.WriteFile(config, []byte(skaffoldText), 0o600))
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		args = append([]string{"-o", path, "-skaffold", config}, args...)
		err = dispatch(t.Context(), args, streams{strings.NewReader(""), &out, &out}, system{runner: w, now: time.Now})
	})
	left, readErr := os.ReadFile(path)
	must(t, readErr)
	return out.String(), string(left), err
}

func TestStages(t *testing.T) {
	t.Parallel()
	t.Run("all_pass", testStagesAllPass)
	t.Run("selection", testStagesSelection)
	t.Run("operator_and_ingress", testStagesOperator)
	t.Run("faults", testStagesFaults)
	t.Run("failing_commands", testStagesFailingCommands)
}

func testStagesAllPass(t *testing.T) {
	t.Parallel()
	w := newFakeCluster("none, namespace left by an earlier run")
	stdout, document, err := runStages(t, w, "-set", "a=b c=d")
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	for _, want := range []string{
		"removing the namespace of an earlier run",
		"stage install passed in ", "helm test passes; a product posted through the ingress's rules is ready and all its 14 URLs",
		"promtool takes the metrics of 3 pods; 8 log lines are JSON",
		"500 images: 1 -> 4 -> 1 workers, all ready, none processed twice, first new pod ready 10 s after the first was accepted",
		"busy; 10 s with a codec that sleeps; 10 images: 0 -> 1 -> 0, first pod ready after 10 s; ",
		"1, 2 and 4 workers make 2.00, 4.00 and 8.00 images a second",
		"rolling upgrade of api and worker: 100 requests, none failed", "all of Redis killed: complete after ",
		"Postgres stopped for 1m0s: complete after 60 s; through the Service, 0 of 80 cached reads and 3 of 20 writes failed, ",
		"a changed pipeline is in force in 4 pods", "only the 2 volumes that the notes name",
		"\nratio old/ratio 0.50\nratio workers-2/linear 1.00\nratio workers-4/linear 1.00\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the output does not contain %q", want)
		}
	}
	for _, want := range []string{
		"# Title\n\n" + beginMark, "| `install` | install, test, post, download | installed into a restricted", "| `upgrade` |",
		"`0123456789ab`, Kubernetes v1.34.3, nodes: 1, CPUs: 2, Helm v3.19.2, KEDA 2.21.0 |", "| `workers-4/linear` | 1.00 |",
		endMark + "\n\nthe rest\n",
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the document does not contain %q", want)
		}
	}
	if strings.Contains(document, "| other |") {
		t.Error("the document still has the old result of the stage reload")
	}
	if t.Failed() {
		t.Logf("%s\n%s", stdout, document)
	}
	want := "upgrade --install --wait --timeout 10m0s vitrine charts/vitrine -f charts/vitrine/values-dev.yaml -f - " +
		"--set api.image.repository=vitrine-api --set api.image.tag=dev --set log.level=info --set worker.image.tag=dev " +
		"--set a=b --set c=d"
	if w.deployed[0] != want {
		t.Errorf("helm was called with\n%s, want\n%s", w.deployed[0], want)
	}
	if all := strings.Join(w.applied, ""); !strings.Contains(all, "enforce: restricted") ||
		!strings.Contains(all, `args: ["proxy","-addr",":8080","-routes","[{\"host\":\"h\",\"path\":\"/media\"`) {
		t.Errorf("applied was\n%s", all)
	}
}

func testStagesSelection(t *testing.T) {
	t.Parallel()
	w := newFakeCluster("no git")
	stdout, document, err := runStages(t, w, "-stages", "upgrade,upgrade", "-keep")
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if !strings.Contains(document, "| `reload` | other | x | y |\n| `upgrade` | upgrade, rollback, uninstall | ") {
		t.Errorf("the document is\n%s", document)
	}
	if len(w.deployed) < 2 || strings.Contains(w.deployed[0], "debug") {
		t.Errorf("the release was not installed first: %v", w.deployed)
	}
}

func testStagesOperator(t *testing.T) {
	t.Parallel()
	w := newFakeCluster("none, with an operator")
	stdout, _, err := runStages(t, w, "-stages", "install,failover", "-ingress", "traefik.traefik.svc")
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	const want = "the primary of three servers deleted: complete after 1 s; through the ingress controller, 0 of 80"
	if !strings.Contains(stdout, want) {
		t.Errorf("the output does not contain %q:\n%s", want, stdout)
	}
	if values := w.values[0]; !strings.Contains(values, "host: traefik.traefik.svc}") ||
		!strings.Contains(values, "operator: {enabled: true, instances: 3") {
		t.Errorf("deployed with the values %s", values)
	}
	if all := strings.Join(w.applied, ""); strings.Contains(all, `"proxy"`) {
		t.Error("the proxy was started although there is an ingress controller")
	}
}

func testStagesFaults(t *testing.T) {
	t.Parallel()
	for fault, row := range map[string]struct{ stage, want string }{
		"container image missing":               {"install", "no node has vitrine-e2e:dev"},
		"no KEDA":                               {"autoscaling", "look for KEDA"},
		"foreign namespace":                     {"install", "not created by this program"},
		"helper does not start":                 {"install", "pod e2e-client: it is Running, not ready"},
		"install fails":                         {"install", "install: timed out"},
		"helm test fails":                       {"install", "helm test: exit status 1\nno image"},
		"no ingress for images":                 {"install", "the ingresses have 1 paths"},
		"ingress with unknown port":             {"install", `no port "other"`},
		"URL cannot be downloaded":              {"install", "403"},
		"bucket can be listed":                  {"install", "must not be listed"},
		"invalid metrics":                       {"install", "exit status 3 no help text"},
		"log line is not JSON":                  {"install", "line is not JSON: panic: oh"},
		"no ScaledObject":                       {"autoscaling", "none of 0 ScaledObjects"},
		"workers do not scale":                  {"autoscaling", "at most 1 workers were ready"},
		"image processed twice":                 {"autoscaling", "1 of 500 images were processed twice"},
		"clocks differ":                         {"autoscaling", "from 1 workers: the first product was created at 0001-01-01"},
		"all products end at once":              {"autoscaling", "at the same time"},
		"request fails during upgrade":          {"healing", "rolling upgrade: 1 of 100 requests failed: 503"},
		"process does not restart":              {"healing", "kill an api process: wait 6m0s for the pods: pod api-"},
		"pod is not replaced":                   {"healing", "kill an api pod: wait 6m0s for the pods: pod api-"},
		"workload stays incomplete":             {"healing", "Deployment api has 1 of 2 pods ready"},
		"accepted image is lost":                {"healing", "19 of 20 accepted images are ready: product 7"},
		"no cache after outage":                 {"healing", "the cache has answered"},
		"tally is not JSON":                     {"healing", `read tally "Killed"`},
		"cached read fails":                     {"outage", "Postgres stopped for 1m0s: 1 of 80 reads failed, and 3 of 3 failed writes"},
		"write fails without retry-after":       {"outage", "0 of 80 reads failed, and 2 of 3 failed writes had a 503 with Retry-After"},
		"Postgres does not stop":                {"outage", "wait 4m0s for the end of Postgres: pod postgres-"},
		"pods cannot be read":                   {"outage", "the pods of api were not seen"},
		"no write fails":                        {"outage", "none of 20 writes was refused"},
		"api pod becomes unready":               {"outage", "1 of 2 pods of api were ready"},
		"pipeline is not applied":               {"reload", "valid pipeline: wait 4m0s for a revision: r0 is in force"},
		"pipeline change restarts pods":         {"reload", "pods have restarted"},
		"old renditions":                        {"reload", "new images have the renditions [thumb], want e2e"},
		"invalid pipeline is accepted":          {"reload", "vitrine_pipeline_reload_success is 1"},
		"value has no effect":                   {"upgrade", ` has the log level {"level":"info"}, want debug`},
		"rollback has no effect":                {"upgrade", ` has the log level {"level":"debug"}, want info`},
		"secret is left":                        {"upgrade", "objects are left: secret/vitrine"},
		"cluster role is left":                  {"upgrade", "objects are left: clusterrole/vitrine"},
		"notes without volumes":                 {"upgrade", "the notes name []"},
		"products are deleted with the release": {"upgrade", "install on existing volumes: 404"},
		"replica has a stale master address":    {"upgrade", "has no connection to its master"},
		"notes with too few volumes":            {"upgrade", "the notes name [data-kafka-0]"},
	} {
		t.Run(strings.ReplaceAll(fault, " ", "_"), func(t *testing.T) {
			t.Parallel()
			stdout, document, err := runStages(t, newFakeCluster(fault), "-stages", row.stage)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got error %v, want one with %q\n%s", err, row.want, stdout)
			}
			if document != documentText {
				t.Errorf("the document has changed:\n%s", document)
			}
			const how = "the release stays for inspection: kubectl -n vitrine-e2e"
			if strings.Contains(stdout, "stage ") && !strings.Contains(stdout, how) {
				t.Errorf("the output does not say how to inspect the release:\n%s", stdout)
			}
		})
	}
}

// failingRunner is a cluster on which all commands fail after the first few.
type failingRunner struct {
	*fakeCluster
	left atomic.Int64
}

func (b *failingRunner) run(ctx context.Context, c command) (string, error) {
	if b.left.Add(-1) < 0 {
		return "", errors.New("command failed")
	}
	return b.fakeCluster.run(ctx, c)
}

func testStagesFailingCommands(t *testing.T) {
	t.Parallel()
	for commands := int64(0); ; commands += 1 + commands/40 { // each of the first 40, then in growing steps
		b := &failingRunner{fakeCluster: newFakeCluster("")}
		b.left.Store(commands)
		stdout, document, err := runStages(t, b)
		if b.left.Load() >= 0 {
			if err != nil || commands < 100 {
				t.Errorf("with %d commands, which are enough: %v", commands, err)
			}
			return
		}
		if err == nil || document != documentText && !strings.Contains(stdout, "stage upgrade passed") {
			t.Fatalf("with %d commands: got error %v and the document\n%s\n%s", commands, err, document, stdout)
		}
	}
}

func TestFormatReady(t *testing.T) {
	t.Parallel()
	for elapsed, want := range map[time.Duration]string{
		15 * time.Second: "15 s", 16 * time.Second: "16 s (goal 15 s, missed)", 100 * time.Millisecond: "0 s",
	} {
		if got := formatReady(elapsed); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestInvalidArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nonsense"}, {"-stages", "none"}, {"-stages", ""}, {"-o", "/does/not/exist"}, {"-skaffold", "/does/not/exist"}, {"nonsense"},
		{"get"}, {"get", "-nonsense"}, {"get", "::"}, {"proxy", "-routes", "x"}, {"proxy", "-routes", `[{"to": ":"}]`},
		{"proxy", "-nonsense"}, {"source", "-nonsense"}, {"source", "-addr", "nowhere:x"}, {"burst", "-nonsense"}, {"load", "-nonsense"},
	} {
		var out bytes.Buffer
		if _, _, err := runStages(t, newFakeCluster(""), args...); len(args) > 0 && args[0][0] == '-' && err == nil {
			t.Errorf("%v: no error", args)
		}
		if args[0][0] == '-' {
			continue
		}
		if err := dispatch(t.Context(), args, streams{strings.NewReader(""), &out, &out}, system{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestDocumentMarks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/e2e.md")
	must(t, err)
	if _, err := readSummary(text); err != nil {
		t.Error(err)
	}
	var o options
	must(t, o.parse(flag.NewFlagSet("", flag.ContinueOnError), nil))
}

func TestReadPlanOfRepository(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../skaffold.yaml")
	must(t, err)
	p, err := readPlan(text)
	must(t, err)
	settings, err := p.settings("dev")
	must(t, err)
	all := strings.Join(settings, "\n")
	for _, want := range []string{"api.image.repository=vitrine-api", "api.image.tag=dev", "worker.image.tag=dev"} {
		if !strings.Contains(all, want) {
			t.Errorf("the settings do not contain %s:\n%s", want, all)
		}
	}
	for _, file := range append(p.valuesFiles, p.chart) {
		if _, err := os.Stat(filepath.Join("../../..", file)); err != nil {
			t.Error(err)
		}
	}
}
