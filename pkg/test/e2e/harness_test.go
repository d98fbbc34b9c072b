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

// runStages runs the program on a world, in a time of its own, and returns what it printed and left in the document.
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

func TestEverythingIsShownOnAClusterThatKeepsItsPromises(t *testing.T) {
	t.Parallel()
	w := newWorld("none, after an earlier run")
	stdout, document, err := runStages(t, w, "-set", "a=b c=d")
	if err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	for _, want := range []string{
		"removing what an earlier run has left",
		"stage install passed in ", "helm test passes; a product posted through the ingress's rules is ready and all its 14 URLs",
		"promtool takes the metrics of 3 pods; 8 log lines are JSON",
		"500 pictures: 1 -> 4 -> 1 workers, all ready, none twice, first new pod ready 10 s after the first was accepted",
		"busy; 10 s with a codec that sleeps; 10 pictures: 0 -> 1 -> 0, first pod ready after 10 s; ",
		"1, 2 and 4 workers make 2.00, 4.00 and 8.00 pictures a second",
		"rolling upgrade of api and worker: 100 requests, none failed", "all of Redis killed: whole after ",
		"a changed pipeline is in force in 4 pods", "nothing but the 2 volumes that the notes name",
		"\nratio old/ratio 0.50\nratio workers-2/linear 1.00\nratio workers-4/linear 1.00\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for _, want := range []string{
		"# Title\n\n" + beginMark, "| `install` | install, test, post, download | installed into a restricted", "| `upgrade` |",
		"`0123456789ab`, Kubernetes v1.34.3, nodes: 1, CPUs: 2, Helm v3.19.2, KEDA 2.21.0 |", "| `workers-4/linear` | 1.00 |",
		endMark + "\n\nthe rest\n",
	} {
		if !strings.Contains(document, want) {
			t.Errorf("the document lacks %q", want)
		}
	}
	if strings.Contains(document, "| other |") {
		t.Error("the document still has what the stage reload has seen before")
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

func TestAStageThatIsNotAskedForKeepsItsLine(t *testing.T) {
	t.Parallel()
	w := newWorld("no git")
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

func TestEachStageFailsIfItsThingIsBroken(t *testing.T) {
	t.Parallel()
	for fault, row := range map[string]struct{ stage, want string }{
		"an image is missing":                   {"install", "no node has vitrine-e2e:dev"},
		"no KEDA":                               {"autoscaling", "look for KEDA"},
		"somebody else's namespace":             {"install", "not by this program"},
		"a helper does not start":               {"install", "pod e2e-client: it is Running, not ready"},
		"it does not install":                   {"install", "install: timed out"},
		"helm test fails":                       {"install", "helm test: exit status 1\nno picture"},
		"no ingress for pictures":               {"install", "the ingresses have 1 paths"},
		"an ingress to nowhere":                 {"install", `no port "other"`},
		"a URL that does not download":          {"install", "403"},
		"a bucket that is listed":               {"install", "must not be listed"},
		"bad metrics":                           {"install", "exit status 3 no help text"},
		"a log line in plain text":              {"install", "this line is no JSON: panic: oh"},
		"no ScaledObject":                       {"autoscaling", "none of 0 ScaledObjects"},
		"workers that do not scale":             {"autoscaling", "there were at most 1 ready workers"},
		"a picture that is done twice":          {"autoscaling", "1 of 500 pictures were done twice"},
		"a helper of another time":              {"autoscaling", "from 1 workers: the first product is of 0001-01-01"},
		"workers that all work at once":         {"autoscaling", "at the same time"},
		"a request fails in an upgrade":         {"healing", "rolling upgrade: 1 of 100 requests failed: 503"},
		"a dead process stays away":             {"healing", "kill an api process: wait 6m0s for the pods: pod api-"},
		"a dead pod stays away":                 {"healing", "kill an api pod: wait 6m0s for the pods: pod api-"},
		"a dead pod's work load stays broken":   {"healing", "Deployment api has 1 of 2 pods ready"},
		"an accepted picture is lost":           {"healing", "19 of 20 accepted pictures are ready: product 7"},
		"no cache after an outage":              {"healing", "the cache has answered"},
		"a load that cannot be read":            {"healing", `read tally "Killed"`},
		"a pipeline that reaches nobody":        {"reload", "a good pipeline: wait 4m0s for a revision: r0 is in force"},
		"a pipeline that needs a restart":       {"reload", "pods have restarted"},
		"old renditions":                        {"reload", "new pictures have the renditions [thumb], want e2e"},
		"a bad pipeline is taken":               {"reload", "vitrine_pipeline_reload_success is 1"},
		"a value that has no effect":            {"upgrade", ` logs from {"level":"info"} on, want debug`},
		"no way back":                           {"upgrade", ` logs from {"level":"debug"} on, want info`},
		"a secret is left":                      {"upgrade", "left is secret/vitrine"},
		"a cluster role is left":                {"upgrade", "left is clusterrole/vitrine"},
		"notes without volumes":                 {"upgrade", "the notes name []"},
		"products are gone with the release":    {"upgrade", "install on volumes that were left: 404"},
		"a replica that follows a dead address": {"upgrade", "has no connection to its master"},
		"notes that name too few volumes":       {"upgrade", "the notes name [data-kafka-0]"},
	} {
		stdout, document, err := runStages(t, newWorld(fault), "-stages", row.stage)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got error %v, want one with %q\n%s", fault, err, row.want, stdout)
		}
		if document != documentText {
			t.Errorf("%s: the document has become\n%s", fault, document)
		}
		const how = "the release stays for inspection: kubectl -n vitrine-e2e"
		if strings.Contains(stdout, "stage ") && !strings.Contains(stdout, how) {
			t.Errorf("%s: it does not say how to look:\n%s", fault, stdout)
		}
	}
}

// broken is a world in which no command works after the first few.
type broken struct {
	*world
	left atomic.Int64
}

func (b *broken) run(ctx context.Context, c command) (string, error) {
	if b.left.Add(-1) < 0 {
		return "", errors.New("broken")
	}
	return b.world.run(ctx, c)
}

func TestWheneverCommandsBeginToFailNothingIsShownThatWasNotSeen(t *testing.T) {
	t.Parallel()
	for commands := int64(0); ; commands += 1 + commands/40 { // every one of the first, and then some
		b := &broken{world: newWorld("")}
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

func TestAGoalThatWasMissedIsSaid(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]string{
		15 * time.Second: "15 s", 16 * time.Second: "16 s (goal 15 s, missed)", 100 * time.Millisecond: "0 s",
	} {
		if got := compared(took); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestBadArgumentsAreErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nonsense"}, {"-stages", "none"}, {"-stages", ""}, {"-o", "/does/not/exist"}, {"-skaffold", "/does/not/exist"}, {"nonsense"},
		{"get"}, {"get", "-nonsense"}, {"get", "::"}, {"proxy", "-routes", "x"}, {"proxy", "-routes", `[{"to": ":"}]`},
		{"proxy", "-nonsense"}, {"source", "-nonsense"}, {"source", "-addr", "nowhere:x"}, {"burst", "-nonsense"}, {"load", "-nonsense"},
	} {
		var out bytes.Buffer
		if _, _, err := runStages(t, newWorld(""), args...); len(args) > 0 && args[0][0] == '-' && err == nil {
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

func TestTheRealDocumentHasItsMarks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/e2e.md")
	must(t, err)
	if _, err := readSummary(text); err != nil {
		t.Error(err)
	}
	var o options
	must(t, o.parse(flag.NewFlagSet("", flag.ContinueOnError), nil))
}

func TestTheRealSkaffoldConfigIsUnderstood(t *testing.T) {
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
			t.Errorf("the settings lack %s:\n%s", want, all)
		}
	}
	for _, file := range append(p.valuesFiles, p.chart) {
		if _, err := os.Stat(filepath.Join("../../..", file)); err != nil {
			t.Error(err)
		}
	}
}
