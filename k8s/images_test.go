package k8s_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dockerfile holds the instructions of a Dockerfile: those before the first FROM, and its stages.
type dockerfile struct {
	name   string
	head   []string
	stages []stage
}

type stage struct {
	base, name string
	lines      []string
}

// parse parses a Dockerfile. It joins continued lines and drops comments.
func parse(t *testing.T, path string) dockerfile {
	t.Helper()
	file := dockerfile{name: path}
	source := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(string(read(t, path)), "")
	source = regexp.MustCompile(`\s*\\\n\s*`).ReplaceAllString(source, " ")
	for line := range strings.Lines(source) {
		words := strings.Fields(line)
		line = strings.TrimSpace(line)
		switch {
		case len(words) == 0:
		case words[0] == "FROM":
			words = slices.DeleteFunc(words[1:], func(word string) bool { return strings.HasPrefix(word, "--") })
			s := stage{base: words[0]}
			if len(words) == 3 {
				s.name = words[2]
			}
			file.stages = append(file.stages, s)
		case len(file.stages) == 0:
			file.head = append(file.head, line)
		default:
			last := &file.stages[len(file.stages)-1]
			last.lines = append(last.lines, line)
		}
	}
	return file
}

func (d dockerfile) stage(name string) *stage {
	for i := range d.stages {
		if d.stages[i].name == name {
			return &d.stages[i]
		}
	}
	return nil
}

// all returns the lines of a stage, after those of the stages on which it is based.
func (d dockerfile) all(s stage) []string {
	if below := d.stage(s.base); below != nil {
		return append(slices.Clone(d.all(*below)), s.lines...)
	}
	return s.lines
}

// declares reports whether there is an ARG of this name.
func (d dockerfile) declares(arg string) bool {
	declared := regexp.MustCompile(`^ARG (.* )?` + regexp.QuoteMeta(arg) + `(=| |$)`)
	found := slices.ContainsFunc(d.head, declared.MatchString)
	for _, s := range d.stages {
		found = found || slices.ContainsFunc(s.lines, declared.MatchString)
	}
	return found
}

// argument returns the default of an ARG before the first FROM, or "".
func (d dockerfile) argument(name string) string {
	for _, line := range d.head {
		if value, ok := strings.CutPrefix(line, "ARG "+name+"="); ok {
			return value
		}
	}
	return ""
}

var dockerfiles = []string{"Dockerfile.api", "Dockerfile.controller", "Dockerfile.worker"}

func TestDockerfiles(t *testing.T) {
	t.Parallel()
	t.Run("user_and_entry_point", testDockerfilesUserAndEntryPoint)
	t.Run("base_images_are_pinned", testDockerfilesBaseImagesArePinned)
	t.Run("build_context_is_complete", testDockerfilesBuildContextIsComplete)
}

func testDockerfilesUserAndEntryPoint(t *testing.T) {
	t.Parallel()
	for _, path := range dockerfiles {
		file := parse(t, path)
		for _, s := range file.stages {
			lines := file.all(s)
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "ENTRYPOINT") }) {
				continue // a stage that only builds
			}
			// Kubernetes cannot check a user name against runAsNonRoot. In the shell form a shell would receive the signals.
			for _, want := range []string{"USER 65532:65532", "STOPSIGNAL SIGTERM"} {
				if !slices.Contains(lines, want) {
					t.Errorf("%s, stage %q: no %s", path, s.name, want)
				}
			}
			program := strings.TrimPrefix(strings.TrimPrefix(path, "Dockerfile"), ".")
			if want := `ENTRYPOINT ["/usr/local/bin/` + program + `"]`; !slices.Contains(lines, want) {
				t.Errorf("%s, stage %q: no %s", path, s.name, want)
			}
			labels := strings.Join(lines, "\n")
			for _, label := range []string{"title", "description", "source", "licenses", "version", "revision"} {
				if !strings.Contains(labels, "org.opencontainers.image."+label+`="`) {
					t.Errorf("%s, stage %q: no label %s", path, s.name, label)
				}
			}
		}
	}
}

func testDockerfilesBaseImagesArePinned(t *testing.T) {
	t.Parallel()
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(read(t, "go.mod")))[1]
	for _, path := range dockerfiles {
		file := parse(t, path)
		if got := file.argument("GO_IMAGE"); !strings.HasPrefix(got, "docker.io/library/golang:"+version+"-") {
			t.Errorf("%s builds with %s, go.mod says %s", path, got, version)
		}
		for _, s := range file.stages {
			if s.base != "${GO_IMAGE}" && s.base != "${RUNTIME_IMAGE}" && file.stage(s.base) == nil {
				t.Errorf("%s: %s is no argument, so a build cannot pin it", path, s.base)
			}
			for _, line := range s.lines {
				switch {
				case strings.HasPrefix(line, "ADD "):
					t.Errorf("%s: ADD also unpacks and downloads, use COPY: %s", path, line)
				case strings.Contains(line, "apt-get install") && !strings.Contains(line, "--no-install-recommends"):
					t.Errorf("%s: it would install recommended packages too: %s", path, line)
				case strings.Contains(line, "go build") && !strings.Contains(line, "id=vitrine-go-build,target=/root/.cache/go-build"):
					t.Errorf("%s: the Go build cache is not mounted: %s", path, line)
				case strings.Contains(line, "go build") && !slices.Contains(s.lines, "COPY . ."):
					t.Errorf("%s: skaffold watches what COPY names: %s", path, line)
				}
			}
		}
	}
	// The codec is linked with the libvips of one Debian, and runs with that of the other.
	worker := parse(t, "Dockerfile.worker")
	_, built, _ := strings.Cut(worker.argument("GO_IMAGE"), "-")
	_, runs, _ := strings.Cut(worker.argument("RUNTIME_IMAGE"), ":")
	if built == "" || built != strings.TrimSuffix(runs, "-slim") {
		t.Errorf("the codec is built on %q and runs on %q", built, runs)
	}
	if last := worker.stages[len(worker.stages)-1]; last.name != "runtime" {
		t.Errorf("who names no target gets the stage %q instead of the real codec", last.name)
	}
}

func testDockerfilesBuildContextIsComplete(t *testing.T) {
	t.Parallel()
	var sent []string
	for line := range strings.Lines(string(read(t, ".dockerignore"))) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			sent = append(sent, path)
		}
	}
	args := []string{"list", "-json=Dir,GoFiles,CgoFiles,EmbedFiles,Module", "-deps", "./cmd/...", "./pkg/test/codecstub"}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	needed := []string{"go.mod", "go.sum"}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p struct {
			Dir                           string
			GoFiles, CgoFiles, EmbedFiles []string
			Module                        *struct{ Main bool }
		}
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.EmbedFiles) {
			file, err := filepath.Rel(here, filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			needed = append(needed, file)
		}
	}
	if len(needed) < 50 {
		t.Fatalf("only %d files: this test no longer looks at the right thing", len(needed))
	}
	for _, file := range needed {
		top, _, _ := strings.Cut(file, "/")
		if !slices.Contains(sent, top) || strings.Contains(file, "/testdata/") || strings.HasSuffix(file, "_test.go") {
			t.Errorf(".dockerignore keeps %s away", file)
		}
	}
}

func TestKindCluster(t *testing.T) {
	t.Parallel()
	var cluster struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Name       string `json:"name"`
		Nodes      []struct {
			Role              string            `json:"role"`
			Labels            map[string]string `json:"labels"`
			ExtraPortMappings []struct {
				ContainerPort int    `json:"containerPort"`
				HostPort      int    `json:"hostPort"`
				ListenAddress string `json:"listenAddress"`
				Protocol      string `json:"protocol"`
			} `json:"extraPortMappings"`
		} `json:"nodes"`
	}
	if err := decode(read(t, "k8s/kind.yaml"), &cluster); err != nil {
		t.Fatal(err)
	}
	if cluster.Kind != "Cluster" || cluster.APIVersion != "kind.x-k8s.io/v1alpha4" {
		t.Errorf("it is %s %s", cluster.APIVersion, cluster.Kind)
	}
	var ports []int
	for _, node := range cluster.Nodes {
		if node.Role != "control-plane" && node.Role != "worker" {
			t.Errorf("kind knows no role %q", node.Role)
		}
		for _, mapping := range node.ExtraPortMappings {
			ports = append(ports, mapping.ContainerPort)
			if node.Labels["ingress-ready"] != "true" {
				t.Errorf("port %d leads to a node that the Ingress controller does not choose", mapping.ContainerPort)
			}
			if mapping.ListenAddress != "127.0.0.1" {
				t.Errorf("port %d is open to the network", mapping.HostPort)
			}
		}
	}
	if !slices.Equal(ports, []int{80, 443}) {
		t.Errorf("ports %v, want 80 and 443", ports)
	}
}
