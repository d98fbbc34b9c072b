package controller_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"vitrine.io/pkg/adapter/controller"
)

// verdict returns what kstatus, and so Flux and helm --wait, makes of an object.
func verdict(t *testing.T, obj *unstructured.Unstructured) status.Status {
	t.Helper()
	result, err := status.Compute(obj)
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// checkVerdict requires of a recorded status that kstatus reads it as the controller means it.
func checkVerdict(t *testing.T, obj *unstructured.Unstructured, s controller.Status) {
	t.Helper()
	want := status.InProgressStatus
	switch {
	case s.ObservedGeneration != obj.GetGeneration():
	case s.Reason == controller.ReasonAllInstances, s.Reason == controller.ReasonNotSelected:
		want = status.CurrentStatus
	case s.Reason == controller.ReasonInvalid, s.Reason == controller.ReasonExceedsBounds:
		want = status.FailedStatus
	}
	if got := verdict(t, obj); got != want {
		t.Errorf("kstatus reads %s, want %s, from %+v", got, want, s)
	}
}
