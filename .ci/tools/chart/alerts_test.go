package chart_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const runbooks = "../../../docs/runbooks"

type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

func renderedRules(t *testing.T) rules {
	t.Helper()
	r, err := render(map[string]any{"monitoring": map[string]any{"prometheusRule": map[string]any{"enabled": true}}},
		filepath.Join(chartDir, "values-dev.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range r.objects {
		if o.Kind == "PrometheusRule" {
			var rule struct {
				Spec rules `json:"spec"`
			}
			if err := yaml.Unmarshal(o.text, &rule); err != nil {
				t.Fatal(err)
			}
			return rule.Spec
		}
	}
	t.Fatal("there is no PrometheusRule")
	return rules{}
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	t.Run("runbook_of_every_alert", testAlertsRunbookOfEveryAlert)
	t.Run("metrics_exist", testAlertsMetricsExist)
}

func testAlertsRunbookOfEveryAlert(t *testing.T) {
	t.Parallel()
	var names []string
	for _, group := range renderedRules(t).Groups {
		for _, rule := range group.Rules {
			names = append(names, rule.Alert)
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s: has no summary or no description", rule.Alert)
			}
			if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
				t.Errorf("%s: severity %q", rule.Alert, severity)
			}
			if !strings.HasSuffix(rule.Annotations["runbook_url"], "/docs/runbooks/"+rule.Alert+".md") {
				t.Errorf("%s: runbook_url %q", rule.Alert, rule.Annotations["runbook_url"])
			}
			page, err := os.ReadFile(filepath.Join(runbooks, rule.Alert+".md"))
			if err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
				continue
			}
			for _, heading := range []string{"# " + rule.Alert + "\n", "\n## What it means\n", "\n## What to look at\n", "\n## What to do\n"} {
				if !bytes.Contains(page, []byte(heading)) {
					t.Errorf("%s: its runbook has no %q", rule.Alert, strings.TrimSpace(heading))
				}
			}
			for _, placeholder := range []string{"NAMESPACE", "FULLNAME"} {
				if strings.Contains(rule.Expr, placeholder) {
					t.Errorf("%s: %s is not replaced in its expression", rule.Alert, placeholder)
				}
			}
		}
	}
	pages, err := filepath.Glob(filepath.Join(runbooks, "Vitrine*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); !slices.Contains(names, name) {
			t.Errorf("there is no alert for %s", page)
		}
	}
	tested, err := os.ReadFile(filepath.Join(chartDir, "tests", "alerts.promtool.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(string(tested), `'ALERTS{alertname="`+name+`"`) {
			t.Errorf("%s: no promtool test of it", name)
		}
	}
}

// An alert on a metric that does not exist never fires.
func testAlertsMetricsExist(t *testing.T) {
	t.Parallel()
	source := map[string]bool{}
	files, err := filepath.Glob("../../../pkg/*/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`"([a-z][a-z0-9_]+)"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pkg := filepath.Base(filepath.Dir(file))
		for _, match := range word.FindAllStringSubmatch(string(text), -1) {
			source[match[1]] = true
			source["vitrine_"+pkg+"_"+match[1]] = true // names that are built from package and name
		}
	}
	metric := regexp.MustCompile(`\bvitrine_[a-z0-9_]+\b`)
	found := 0
	for _, group := range renderedRules(t).Groups {
		for _, rule := range group.Rules {
			for _, name := range metric.FindAllString(rule.Expr, -1) {
				found++
				base := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
				if !source[name] && !source[base] {
					t.Errorf("%s: there is no metric %s", rule.Alert, name)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d metrics found", found)
	}
}

// The lag of another group or topic would scale the workers wrongly.
func TestKEDA(t *testing.T) {
	t.Parallel()
	prefix := map[string]any{"kafka": map[string]any{"topics": map[string]any{"prefix": "x."}}}
	r, err := render(prefix, filepath.Join(chartDir, "values-dev.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for file, pattern := range map[string]string{
		"../../../pkg/adapter/kafka/progress.go": `GroupWorkers = "([a-z.]+)"`,
		"../../../pkg/foundation/event/event.go": `TopicRequested\s+= "([a-z.]+)"`,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := regexp.MustCompile(pattern).FindSubmatch(text)
		if name == nil {
			t.Fatalf("%s does not match %s", file, pattern)
		}
		for _, o := range r.objects {
			if o.Kind == "ScaledObject" && !bytes.Contains(o.text, []byte(": x."+string(name[1])+"\n")) {
				t.Errorf("KEDA does not use x.%s:\n%s", name[1], o.text)
			}
		}
	}
}
