package controller_test

import (
	"testing"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"vitrine.io/pkg/foundation/pipeline"
)

// healthFiles are the health checks for Argo CD, by kind.
var healthFiles = map[string]string{
	pipeline.Kind:   "../../../k8s/argocd/imagepipeline-health.lua",
	"ImageBackfill": "../../../k8s/argocd/imagebackfill-health.lua",
}

// toLua converts JSON.
func toLua(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case map[string]any:
		table := l.NewTable()
		for name, field := range v {
			table.RawSetString(name, toLua(l, field))
		}
		return table
	case []any:
		table := l.NewTable()
		for _, item := range v {
			table.Append(toLua(l, item))
		}
		return table
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case int64:
		return lua.LNumber(v)
	case float64:
		return lua.LNumber(v)
	default:
		return lua.LNil
	}
}

// health returns what Argo CD shows for an object.
func health(t *testing.T, obj *unstructured.Unstructured) string {
	t.Helper()
	l := lua.NewState()
	defer l.Close()
	l.SetGlobal("obj", toLua(l, obj.Object))
	if err := l.DoString(read(t, healthFiles[obj.GetKind()])); err != nil {
		t.Fatal(err)
	}
	table, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the health check returned %v", l.Get(-1))
	}
	return table.RawGetString("status").String()
}

// checkHealth requires that Argo CD shows what kstatus reads. It has a word of its own for what waits for people.
func checkHealth(t *testing.T, obj *unstructured.Unstructured) string {
	t.Helper()
	got := health(t, obj)
	want := map[status.Status]string{
		status.CurrentStatus: "Healthy", status.FailedStatus: "Degraded", status.InProgressStatus: "Progressing",
	}[verdict(t, obj)]
	if got != want && (got != "Suspended" || want != "Progressing") {
		t.Errorf("Argo CD shows %s, want %s, for %v", got, want, obj.Object["status"])
	}
	return got
}
