package system_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

// volume is a directory in the layout of a ConfigMap volume: the file is a link through ..data, which the kubelet replaces.
type volume struct {
	t     *testing.T
	dir   string
	count int
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	v.publish("")
	if err := os.Symlink(filepath.Join("..data", "imagepipeline.yaml"), v.file()); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *volume) file() string { return filepath.Join(v.dir, "imagepipeline.yaml") }

// publish replaces the content. Unlike the kubelet, it keeps old versions.
func (v *volume) publish(content string) {
	v.t.Helper()
	v.count++
	stamped, data := fmt.Sprintf("..%d", v.count), filepath.Join(v.dir, "..data")
	if err := errors.Join(
		os.Mkdir(filepath.Join(v.dir, stamped), 0o755),
		os.WriteFile(filepath.Join(v.dir, stamped, "imagepipeline.yaml"), []byte(content), 0o600),
		os.Symlink(stamped, data+"_tmp"), os.Rename(data+"_tmp", data),
	); err != nil {
		v.t.Fatal(err)
	}
}

// stdout runs vitrine until it exits and returns its standard output.
func (s *system) stdout(args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(binDir(s.t), "vitrine"), args...)
	cmd.Env = s.environ()
	out, err := cmd.Output()
	return string(out), err
}

// revision returns the pipeline revision of a document, as vitrine pipeline check prints it.
func (s *system) revision(document string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.stdout("pipeline", "check", file)
	found := regexp.MustCompile(`^OK: .* revision ([0-9a-f]{12}), hash [0-9a-f]{64}\n$`).FindStringSubmatch(out)
	if err != nil || found == nil {
		s.t.Fatalf("check: %v\n%s", err, out)
	}
	return found[1]
}

// checkPipelineMetrics checks that a program's metrics have exactly this revision, and this success of the last reload.
func (s *system) checkPipelineMetrics(r *running, revision string, success float64) error {
	var infos []string
	for line := range strings.Lines(string(s.call(http.MethodGet, r.admin+"/metrics", "").Body)) {
		if strings.HasPrefix(line, "vitrine_pipeline_revision_info{") {
			infos = append(infos, line)
		}
	}
	if len(infos) != 1 || !strings.Contains(infos[0], `revision="`+revision+`"`) {
		return fmt.Errorf("%s: got %q, want revision %s", r.Name, infos, revision)
	}
	if got := s.metric(r, "vitrine_pipeline_reload_success"); got != success {
		return fmt.Errorf("%s: success is %v, want %v", r.Name, got, success)
	}
	if s.metric(r, "vitrine_pipeline_reload_timestamp_seconds") < 1e9 {
		return fmt.Errorf("%s has no time of its last reload", r.Name)
	}
	return nil
}

// status checks that vitrine pipeline status lists exactly these roles with this revision and error, and that it exits with
// code 0 if and only if agreed is true.
func (s *system) status(agreed bool, revision, fileError string, roles ...string) error {
	table, err := s.stdout("pipeline", "status")
	if (err == nil) != agreed {
		return fmt.Errorf("status succeeded: %t\n%s", err == nil, table)
	}
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != len(roles)+1 ||
		strings.Count(table, revision) != len(roles) || strings.Count(table, fileError) < len(roles) {
		return fmt.Errorf("want %v with %s and %q in\n%s", roles, revision, fileError, table)
	}
	out, err := s.stdout("pipeline", "status", "-o", "json")
	if (err == nil) != agreed {
		return fmt.Errorf("status -o json succeeded: %t\n%s", err == nil, out)
	}
	var all struct {
		Instances []struct {
			Instance, Role, Revision, Error string
			Seen                            float64 `json:"seen_seconds_ago"`
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return err
	}
	var found []string
	for _, i := range all.Instances {
		found = append(found, i.Role)
		if i.Revision != revision || !strings.Contains(i.Error, fileError) || (fileError == "") != (i.Error == "") ||
			i.Instance == "" || i.Seen < 0 || i.Seen > 60 {
			return fmt.Errorf("want %s with %q of\n%s", revision, fileError, out)
		}
	}
	if !slices.Equal(found, roles) {
		return fmt.Errorf("want %v of\n%s", roles, out)
	}
	return nil
}

// awaitPipeline waits until the metrics of all programs and vitrine pipeline status have the revision and the error.
func (s *system) awaitPipeline(revision, fileError string, all ...*running) {
	s.t.Helper()
	success, roles := 1.0, []string{}
	if fileError != "" {
		success = 0
	}
	for _, r := range all {
		roles = append(roles, r.Name)
	}
	eventually(s.t, "all programs report the pipeline", func() error {
		for _, r := range all {
			if err := s.checkPipelineMetrics(r, revision, success); err != nil {
				return err
			}
		}
		return s.status(fileError == "", revision, fileError, roles...)
	})
}

// renditionNames creates a product with one image and returns the names of its renditions.
func (s *system) renditionNames(user int64) []string {
	s.t.Helper()
	p := s.awaitSettled(s.post(user, s.sources.URL+photoPath).ID)
	var names []string
	for _, r := range p.Images[0].Renditions {
		names = append(names, r.Name+"."+r.Format)
	}
	slices.Sort(names)
	return names
}

// planWithoutRequest plans a backfill from an earlier pipeline to the one in force, with which no image was requested yet.
func (s *system) planWithoutRequest(before []byte) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "before.yaml")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "a backfill to the pipeline in force can be planned", func() error {
		_, err := s.stdout("backfill", "plan", "--from", file)
		return err
	})
}

func TestPipelineReload(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	s := newSystem(t, map[string]string{"VITRINE_PIPELINE_FILE": v.file()})
	first, err := os.ReadFile(v.file())
	if err != nil {
		t.Fatal(err)
	}
	work, api := s.start("worker"), s.start("api")
	before := s.revision(string(first))
	s.awaitPipeline(before, "", api, work)
	user := s.user()
	old := s.awaitSettled(s.post(user, s.sources.URL+photoPath).ID)

	changed, err := pipeline.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	changed.Spec.Renditions = []pipeline.Rendition{{
		Name: "tiny", Width: 64, Fit: pipeline.Inside, Background: "#ffffff",
		Formats: []pipeline.Output{{Format: pipeline.JPEG, Quality: 80}},
	}}
	after := s.revision(string(changed.Document()))
	v.publish(string(changed.Document()))
	s.awaitPipeline(after, "", api, work)
	s.planWithoutRequest(first)
	if got := s.renditionNames(user); !slices.Equal(got, []string{"tiny.jpeg"}) || before == after {
		t.Errorf("a new image has %v, want the renditions of the new pipeline", got)
	}
	if unchanged := s.awaitSettled(old.ID); len(unchanged.Images[0].Renditions) != 6 || unchanged.Version != old.Version {
		t.Errorf("an old image has changed: %+v", unchanged)
	}

	v.publish(strings.Replace(string(changed.Document()), `"width":64`, `"width":-1`, 1))
	s.awaitPipeline(after, "spec.renditions[0].width", api, work)
	if got := s.renditionNames(user); !slices.Equal(got, []string{"tiny.jpeg"}) {
		t.Errorf("with an invalid file a new image has %v, want the renditions of the last valid pipeline", got)
	}
	if _, err := s.stdout("pipeline", "check", v.file()); err == nil {
		t.Error("check accepts an invalid file")
	}

	v.publish(string(first))
	s.awaitPipeline(before, "", api, work)
	if err := work.Stop(); err != nil {
		t.Error(err)
	}
	if err := s.status(true, before, "", "api"); err != nil {
		t.Errorf("after the worker's shutdown: %v", err)
	}
}

func TestPipelineCheck(t *testing.T) {
	t.Parallel()
	if out, err := cli(t, nil, "vitrine", "pipeline", "check", "../../../k8s/imagepipeline.yaml"); err != nil ||
		!strings.HasPrefix(out, "OK: ImagePipeline default, revision ") {
		t.Errorf("got %v\n%s", err, out)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("kind: Pod\nspec: {limits: {maxBytes: 1}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := cli(t, nil, "vitrine", "pipeline", "check", bad)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	for _, want := range []string{
		bad + ": kind: must be ImagePipeline", bad + ": spec.limits.maxBytes: must be 1Ki to 256Mi",
		bad + ": spec.renditions: must have 1 to 32 entries", bad + ": metadata.name: is missing",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, args := range [][]string{{"/nowhere"}, {}, {"../../../k8s/imagepipeline.yaml", bad}, {"/dev/null"}} {
		if out, err := cli(t, nil, "vitrine", append([]string{"pipeline", "check"}, args...)...); err == nil {
			t.Errorf("check %v succeeds:\n%s", args, out)
		}
	}
	out, err = cliReading(t, string(pipeline.Default().Document()), nil, "vitrine", "pipeline", "check", "-")
	if err != nil || !strings.Contains(out, pipeline.Default().Hash()) {
		t.Errorf("from stdin: %v\n%s", err, out)
	}
}

func TestPipelineStatusErrors(t *testing.T) {
	t.Parallel()
	for want, env := range map[string][]string{
		"VITRINE_POSTGRES_DSN":         nil,
		"no instance has written":      {"VITRINE_POSTGRES_DSN=" + migrated(t)},
		"the database cannot be reach": {"VITRINE_POSTGRES_DSN=postgres://absent@127.0.0.1:1/x"},
	} {
		if out, err := cli(t, env, "vitrine", "pipeline", "status"); err == nil || !strings.Contains(out, want) {
			t.Errorf("got %v, want %q in\n%s", err, want, out)
		}
	}
	if out, err := cli(t, nil, "vitrine", "pipeline", "status", "-o", "xml"); err == nil ||
		!strings.Contains(out, "table or json") {
		t.Errorf("got %v\n%s", err, out)
	}
	if out, err := cli(t, nil, "vitrine", "pipeline", "status", "--config", "/nowhere"); err == nil ||
		!strings.Contains(out, "/nowhere") {
		t.Errorf("got %v\n%s", err, out)
	}
}

// migrated returns the DSN of an empty database with all migrations.
func migrated(t *testing.T) string {
	t.Helper()
	dsn := servers.Postgres(t)
	if out, err := cli(t, []string{"VITRINE_POSTGRES_DSN=" + dsn}, "vitrine", "migrate", "up"); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	return dsn
}
