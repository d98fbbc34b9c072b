package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCluster imitates kubectl, helm, promtool and git for a cluster on which everything works except for one fault.
type fakeCluster struct {
	fault string

	mu         sync.Mutex
	applied    []string
	deployed   []string // the flags of each upgrade
	values     []string // their values
	primary    int      // number of the primary of the Cluster
	uninstall  bool
	podCount   int // pods created so far
	pods       map[string][]pod
	minWorkers int
	noKEDA     bool
	revision   int
	reload     int
	pipeline   string
	level      string
	hits       int
	disrupted  bool
}

func newFakeCluster(fault string) *fakeCluster {
	return &fakeCluster{fault: fault, pods: map[string][]pod{}, reload: 1, pipeline: "good", level: "info", minWorkers: 1}
}

// hasFault reports whether fault is the fault of this cluster.
func (w *fakeCluster) hasFault(fault string) bool { return w.fault == fault }

// run implements runner.
func (w *fakeCluster) run(_ context.Context, c command) (string, error) {
	var stdin string
	args := c.args
	if len(args) > 2 && args[0] == "--namespace" {
		args = args[2:]
	}
	isLoad := slices.Contains(args, "load")
	if c.stdin != nil && !isLoad {
		text, err := io.ReadAll(c.stdin)
		if err != nil {
			return "", err
		}
		stdin = string(text)
	}
	switch c.name {
	case "kubectl":
		if args[0] == "exec" && slices.Contains(args, "redis-cli") {
			if w.hasFault("replica has a stale master address") {
				return "role:slave\r\nmaster_link_status:down\r\n", nil
			}
			return "role:slave\r\nmaster_link_status:up\r\n", nil
		}
		if args[0] == "exec" {
			return w.exec(args, c.stdin)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.kubectl(args, stdin)
	case "helm":
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.helm(args, stdin)
	case "promtool":
		if w.hasFault("invalid metrics") {
			return "no help text", errors.New("exit status 3")
		}
		return "", nil
	case "git":
		if w.hasFault("no git") {
			return "", errors.New("no git")
		}
		return "0123456789ab\n", nil
	}
	return "", fmt.Errorf("unknown program %s", c.name)
}

func (w *fakeCluster) kubectl(args []string, stdin string) (string, error) {
	switch args[0] {
	case "get":
		return w.get(args[1:])
	case "version":
		return `{"serverVersion": {"gitVersion": "v1.34.3"}}`, nil
	case "apply":
		w.applied = append(w.applied, stdin)
		return "", nil
	case "delete":
		if slices.Contains(args, "--grace-period=1") {
			w.kill(args)
		}
		return "", nil
	case "scale":
		if w.hasFault("Postgres does not stop") {
			return "", nil
		}
		w.scale("postgres", int(args[len(args)-1][len("--replicas=")]-'0'))
		if w.hasFault("api pod becomes unready") {
			w.pods["api"][0].Status.Conditions = nil
		}
		return "", nil
	case "debug":
		w.crash(args[1])
		return "", nil
	case "logs":
		if w.hasFault("log line is not JSON") {
			return "{\"msg\": \"hello\"}\npanic: oh\n", nil
		}
		return "{\"msg\": \"hello\"}\n{\"msg\": \"again\"}\n", nil
	case "patch":
		w.patch(args)
		return "", nil
	case "api-resources":
		if slices.Contains(args, "--namespaced=false") {
			return "namespaces\nclusterroles.rbac.authorization.k8s.io\n", nil
		}
		return "pods\nevents\nevents.events.k8s.io\npersistentvolumeclaims\n", nil
	}
	return "", fmt.Errorf("kubectl cannot %v", args)
}

func (w *fakeCluster) kill(args []string) {
	w.disrupted = true
	if slices.Contains(args, "vitrine-postgres-1") {
		w.primary = 2
	}
	if w.hasFault("pod is not replaced") {
		return
	}
	for component, pods := range w.pods {
		for i, p := range pods {
			if slices.Contains(args, p.Metadata.Name) {
				w.pods[component][i] = w.newPod(component)
			}
		}
	}
}

func (w *fakeCluster) crash(name string) {
	w.disrupted = true
	if w.hasFault("process does not restart") {
		return
	}
	for _, pods := range w.pods {
		for i, p := range pods {
			if p.Metadata.Name == name {
				pods[i].Status.ContainerStatuses = []containerStatus{{RestartCount: p.restarts() + 1}}
			}
		}
	}
}

func (w *fakeCluster) patch(args []string) {
	var patch struct {
		Data map[string]string `json:"data"`
	}
	if err := json.Unmarshal([]byte(args[len(args)-1]), &patch); err != nil {
		panic(err)
	}
	w.pipeline, w.reload = patch.Data[pipelineKey], 1
	if strings.Contains(w.pipeline, "-1") && !w.hasFault("invalid pipeline is accepted") {
		w.reload = 0
	}
}

func (w *fakeCluster) newPod(component string) pod {
	w.podCount++
	var p pod
	p.Metadata.Name, p.Metadata.UID = fmt.Sprintf("%s-%d", component, w.podCount), strconv.Itoa(w.podCount)
	p.Status.Phase, p.Status.PodIP = "Running", fmt.Sprintf("10.0.0.%d", w.podCount)
	if component == "setup" {
		p.Status.Phase = "Succeeded"
	}
	text := fmt.Sprintf(`{"spec": {"containers": [{"name": "c", "ports": [{"name": "admin", "containerPort": 9090}]}]},
		"status": {"conditions": [{"type": "Initialized", "status": "True"},
			{"type": "Ready", "status": "True", "lastTransitionTime": %q}]}}`,
		time.Now().UTC().Format(time.RFC3339))
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	return p
}

// scale sets the number of pods of a component.
func (w *fakeCluster) scale(component string, n int) {
	for len(w.pods[component]) < n {
		w.pods[component] = append(w.pods[component], w.newPod(component))
	}
	w.pods[component] = w.pods[component][:n]
}

// items returns a list as kubectl prints it.
func items(list any) (string, error) {
	text, err := json.Marshal(map[string]any{"items": list})
	return string(text), err
}

func (w *fakeCluster) get(args []string) (string, error) {
	selector := ""
	if i := slices.Index(args, "-l"); i >= 0 {
		selector = args[i+1]
	}
	switch kinds := args[0]; kinds {
	case "nodes":
		images := []string{"docker.io/library/vitrine-api:dev", "vitrine-worker:dev", "x/vitrine-worker-standin:dev"}
		if !w.hasFault("container image missing") {
			images = append(images, "localhost/vitrine-e2e:dev")
		}
		return fmt.Sprintf(`{"items": [{"status": {"capacity": {"cpu": "2"}, "images": [{"names": ["%s"]}]}}]}`,
			strings.Join(images, `","`)), nil
	case "crd":
		if w.hasFault("no KEDA") {
			return "", errors.New("not found")
		}
		return "", nil
	case "namespace":
		switch {
		case w.hasFault("foreign namespace"):
			return `{"metadata": {"name": "vitrine-e2e"}}`, nil
		case w.hasFault("none, namespace left by an earlier run"):
			return `{"metadata": {"name": "vitrine-e2e", "labels": {"vitrine.io/e2e": "true"}}}`, nil
		}
		return "", nil
	case "pod":
		p := w.newPod("helper")
		if w.hasFault("helper does not start") {
			p.Status.Conditions = nil
		}
		text, err := json.Marshal(p)
		return string(text), err
	case "pods":
		if selector == "app=keda-operator" {
			return `{"items": [{"spec": {"containers": [{"image": "ghcr.io/kedacore/keda:2.21.0"}]}}]}`, nil
		}
		return items(w.selected(selector))
	case "deployments,statefulsets":
		ready := 2
		if w.hasFault("workload stays incomplete") && w.disrupted {
			ready = 1
		}
		return fmt.Sprintf(`{"items": [{"kind": "Deployment", "metadata": {"name": "api"}, "spec": {"replicas": 2},
			"status": {"readyReplicas": %d}}]}`, ready), nil
	case "clusters.postgresql.cnpg.io/vitrine-postgres":
		ready := 3
		if w.primary == 2 { // the old primary returns as a standby after the next look
			ready, w.primary = 2, 3
		}
		return fmt.Sprintf(`{"spec": {"instances": 3}, "status": {"currentPrimary": "vitrine-postgres-%d", "readyInstances": %d}}`,
			max(1, w.primary), ready), nil
	case "ingresses":
		return w.ingresses()
	case "services":
		return `{"items": [{"metadata": {"name": "vitrine-api"}, "spec": {"ports": [{"name": "http", "port": 80}]}}]}`, nil
	case "scaledobjects":
		if w.hasFault("no ScaledObject") {
			return `{"items": []}`, nil
		}
		return `{"items": [{"spec": {"minReplicaCount": 1, "maxReplicaCount": 4}}]}`, nil
	case "configmaps":
		return items([]configMap{{}, {Metadata: meta{Name: "vitrine-pipeline"}, Data: map[string]string{pipelineKey: w.pipeline}}})
	default:
		return w.names(kinds)
	}
}

// selected returns the pods of a selector: all pods of the release, or those of a component.
func (w *fakeCluster) selected(selector string) []pod {
	_, component, ok := strings.Cut(selector, "component=")
	if component == "api" && w.hasFault("pods cannot be read") {
		return nil
	}
	if ok {
		return w.pods[component]
	}
	var all []pod
	for _, pods := range w.pods {
		all = append(all, pods...)
	}
	return all
}

func (w *fakeCluster) ingresses() (string, error) {
	path := func(path, service, port string) string {
		return fmt.Sprintf(`{"spec": {"rules": [{"host": "h", "http": {"paths": [{"path": %q, "pathType": "Prefix",
			"backend": {"service": {"name": %q, "port": {%s}}}}]}}]}}`, path, service, port)
	}
	all := []string{path("/", "vitrine-api", `"name": "http"`), path("/media", "vitrine-minio", `"number": 9000`)}
	switch w.fault {
	case "no ingress for images":
		all = all[:1]
	case "ingress with unknown port":
		all[0] = path("/", "vitrine-api", `"name": "other"`)
	}
	return `{"items": [` + strings.Join(all, ",") + `]}`, nil
}

func (w *fakeCluster) names(kinds string) (string, error) {
	const claims = "persistentvolumeclaim/data-kafka-0\npersistentvolumeclaim/data-postgres-0\n"
	switch {
	case strings.Contains(kinds, "clusterroles"):
		if w.hasFault("cluster role is left") {
			return "clusterrole/vitrine\n", nil
		}
		return "", nil
	case w.uninstall && w.hasFault("secret is left"):
		return "configmap/kube-root-ca.crt\nsecret/vitrine\n" + claims, nil
	case w.uninstall:
		return "configmap/kube-root-ca.crt\n" + claims, nil
	}
	return "configmap/kube-root-ca.crt\n", nil
}

func (w *fakeCluster) helm(args []string, stdin string) (string, error) {
	switch args[0] {
	case "version":
		return "v3.19.2+g8766e71\n", nil
	case "upgrade":
		if w.hasFault("install fails") {
			return "", errors.New("timed out")
		}
		w.values = append(w.values, stdin)
		w.deploy(strings.Join(args, " "))
	case "test":
		if w.hasFault("helm test fails") {
			return "no image", errors.New("exit status 1")
		}
	case "rollback":
		if w.hasFault("rollback has no effect") {
			return "", nil
		}
		w.level = "info"
	case "uninstall":
		w.uninstall = true
		w.pods = map[string][]pod{}
	case "get":
		if w.hasFault("notes without volumes") {
			return "Enjoy.", nil
		}
		if w.hasFault("notes with too few volumes") {
			return "To remove them:\n  kubectl -n x delete pvc data-kafka-0\n\nAnd more.\n", nil
		}
		return "To remove them:\n\n  kubectl -n x delete pvc data-postgres-0 \\\n  data-kafka-0\n\nAnd more.\n", nil
	}
	return "", nil
}

func (w *fakeCluster) deploy(flags string) {
	w.uninstall = false
	w.deployed = append(w.deployed, flags)
	w.scale("api", 2)
	for _, component := range []string{"setup", "kafka", "postgres"} {
		w.scale(component, 1)
	}
	w.scale("redis", 6)
	w.minWorkers = 1
	w.noKEDA = strings.Contains(flags, "keda.enabled=false")
	if strings.Contains(flags, "scaleToZero=true") {
		w.minWorkers = 0
	}
	if _, rest, ok := strings.Cut(flags, "worker.replicas="); ok {
		w.minWorkers = int(rest[0] - '0')
	}
	if strings.Contains(flags, "minReplicas=2") {
		w.minWorkers = 2
	}
	w.scale("worker", w.minWorkers)
	w.level = "info"
	if strings.Contains(flags, "log.level=debug") && !w.hasFault("value has no effect") {
		w.level = "debug"
	}
	if strings.Contains(flags, "pipeline.renditions=") && !w.hasFault("pipeline is not applied") {
		w.revision++
		if w.hasFault("pipeline change restarts pods") {
			w.scale("worker", 0)
			w.scale("worker", w.minWorkers)
		}
	}
}

// exec imitates the helper's commands. Delays use the fake clock of synctest.
func (w *fakeCluster) exec(args []string, stdin io.Reader) (string, error) {
	args = args[slices.Index(args, helperProgram)+1:]
	flag := func(name string, fallback int) int {
		if i := slices.Index(args, name); i >= 0 {
			if n, err := strconv.Atoi(args[i+1]); err == nil {
				return n
			}
		}
		return fallback
	}
	switch args[0] {
	case "get":
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.httpGet(args)
	case "burst":
		return w.burst(flag("-products", 1), flag("-images", 1))
	case "load":
		if _, err := io.ReadAll(stdin); err != nil {
			return "", err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		t := tally{Requests: 100, Accepted: 10, Images: 20, Ready: 20}
		if slices.Contains(args, "-cached") {
			t.Reads, t.Failed, t.Refused = 80, 3, 3
		}
		if w.hasFault("no write fails") {
			t.Failed, t.Refused = 0, 0
		}
		switch {
		case w.hasFault("cached read fails"):
			t.Unread++
			t.addFailure(errors.New("404"))
		case w.hasFault("write fails without retry-after"):
			t.Refused--
		case w.hasFault("request fails during upgrade"):
			t.addFailure(errors.New("503"))
		case w.hasFault("accepted image is lost") && w.disrupted:
			t.Ready--
			t.addMissing(7, errors.New("it is not settled"))
		case w.hasFault("tally is not JSON"):
			return "Killed", nil
		}
		text, err := json.Marshal(t)
		return string(text), err
	}
	return "", fmt.Errorf("no command %v", args)
}

func (w *fakeCluster) httpGet(args []string) (string, error) {
	switch url := args[len(args)-1]; {
	case strings.Contains(url, "/media"):
		if w.hasFault("bucket can be listed") {
			return "", errors.New("200 OK, want 404")
		}
		return "", nil
	case strings.HasSuffix(url, "/products/1") && w.hasFault("products are deleted with the release"):
		return "", errors.New("404 Not Found")
	case strings.HasSuffix(url, "/loglevel"):
		return fmt.Sprintf(`{"level":%q}`, w.level), nil
	default:
		if !w.hasFault("no cache after outage") || !w.disrupted {
			w.hits++
		}
		return fmt.Sprintf("vitrine_pipeline_revision_info{revision=\"r%d\"} 1\nvitrine_pipeline_reload_success %d\n"+
			"vitrine_rediscache_gets_total{outcome=\"hit\"} %d\nvitrine_rediscache_gets_total_other 7\n",
			w.revision, w.reload, w.hits), nil
	}
}

// burst imitates a burst. The workers scale up if there are many images or no workers.
func (w *fakeCluster) burst(products, images int) (string, error) {
	w.mu.Lock()
	workers, scales, start := w.minWorkers, !w.noKEDA && (products*images >= 200 || w.minWorkers == 0), time.Now()
	w.mu.Unlock()
	if scales && !w.hasFault("workers do not scale") {
		<-time.After(10 * time.Second)
		w.mu.Lock()
		w.scale("worker", max(1, w.minWorkers*4))
		w.mu.Unlock()
	}
	<-time.After(20 * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scale("worker", w.minWorkers)
	all := products * images
	t := tally{Requests: products, Accepted: products, Images: all, Ready: all, Downloaded: 14, Started: start}
	t.Renditions = []string{"thumb"}
	if w.revision > 0 {
		t.Renditions = []string{"e2e"}
	}
	for i := range products {
		t.Ends = append(t.Ends, time.Unix(0, int64(i)*int64(time.Second)/int64(2*max(1, workers))))
	}
	switch {
	case w.hasFault("clocks differ"):
		t.Started = time.Time{}
	case w.hasFault("image processed twice") && scales:
		t.Repeated = 1
	case w.hasFault("URL cannot be downloaded") && images == 2:
		t.addFailure(errors.New("GET http://h/media/1: 403"))
	case w.hasFault("old renditions") && w.revision > 0:
		t.Renditions = []string{"thumb"}
	case w.hasFault("all products end at once"):
		t.Ends = make([]time.Time, products)
	}
	text, err := json.Marshal(t)
	return string(text), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
