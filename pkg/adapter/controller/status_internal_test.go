package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vitrine.io/pkg/foundation/pipeline"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	valid := Config{Namespace: "a", Pipeline: "b", ConfigMap: "c", Lease: "d", Poll: time.Second, LeaseTime: time.Second}
	if wrong := valid.Validate(); len(wrong) != 0 {
		t.Errorf("got %v", wrong)
	}
	var got []string
	for _, f := range (Config{Namespace: "A", Lease: strings.Repeat("a", 64)}).Validate() {
		got = append(got, f.Path)
	}
	if want := []string{"NAMESPACE", "PIPELINE", "CONFIG_MAP", "LEASE", "POLL", "LEASE_TIME"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := RESTConfig("/nowhere"); err == nil {
		t.Error("a kubeconfig that does not exist is accepted")
	}
	if _, err := RESTConfig(""); err == nil {
		t.Error("there is a ServiceAccount outside of a pod")
	}
}

// observed returns an observation of a generation with a pipeline of that many attempts.
func observed(generation int64, attempts int) observation {
	p := pipeline.Default()
	p.Spec.Retry.MaxAttempts = attempts
	return observation{
		generation: generation, revision: pipeline.NewRevision(p), now: metav1.NewTime(time.Unix(generation, 0)),
		heartbeats: snapshot{read: true},
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	t.Run("history_is_bounded", testStatusHistoryIsBounded)
	t.Run("message_is_bounded", testStatusMessageIsBounded)
	t.Run("previous_status_is_not_modified", testStatusPreviousStatusIsNotModified)
	t.Run("failed_publication_is_not_in_force", testStatusFailedPublicationIsNotInForce)
	t.Run("failed_repair_stays_in_force", testStatusFailedRepairStaysInForce)
	t.Run("pipeline_that_is_no_longer_selected", testStatusPipelineThatIsNoLongerSelected)
}

func testStatusHistoryIsBounded(t *testing.T) {
	t.Parallel()
	var s Status
	for i := range 2 * maxHistory {
		s = observed(int64(i), i+1).next(s)
	}
	if len(s.History) != maxHistory || s.History[0].Revision != s.Revision || s.History[0].Generation != 2*maxHistory-1 {
		t.Errorf("got %+v", s.History)
	}
	again := observed(99, 2*maxHistory).next(s)
	if len(again.History) != maxHistory || again.History[0].Generation != 2*maxHistory-1 {
		t.Errorf("the same revision of another generation: got %+v", again.History[0])
	}
}

func testStatusMessageIsBounded(t *testing.T) {
	t.Parallel()
	s := observation{refused: errors.New(strings.Repeat("ü", maxMessage))}.next(Status{})
	if message := s.Conditions[0].Message; len(message) > maxMessage || !strings.HasSuffix(message, "ü...") {
		t.Errorf("got %d bytes, %.20q", len(message), message[len(message)-10:])
	}
	if note := shorten(strings.Repeat("x", 2000), maxNote); len(note) > 1024 {
		t.Errorf("a note of %d bytes", len(note))
	}
}

func testStatusPreviousStatusIsNotModified(t *testing.T) {
	t.Parallel()
	before := observed(1, 1).next(Status{})
	text := fmt.Sprintf("%+v", before)
	observed(2, 2).next(before)
	if after := fmt.Sprintf("%+v", before); after != text {
		t.Errorf("got  %s\nwant %s", after, text)
	}
}

func testStatusFailedPublicationIsNotInForce(t *testing.T) {
	t.Parallel()
	o := observed(1, 1)
	o.publishErr = errors.New("no space left")
	s := o.next(Status{})
	for kind, reason := range map[string]string{
		Published: ReasonPublishFailed, InForce: ReasonNotPublished, Ready: ReasonPublishFailed, Reconciling: ReasonPublishFailed,
	} {
		if c := meta.FindStatusCondition(s.Conditions, kind); c == nil || c.Reason != reason {
			t.Errorf("%s: got %+v, want %s", kind, c, reason)
		}
	}
	if s.Revision != "" || len(s.History) != 0 {
		t.Errorf("got revision %q, history %v", s.Revision, s.History)
	}
}

func testStatusFailedRepairStaysInForce(t *testing.T) {
	t.Parallel()
	inForce := func(o observation) observation {
		o.heartbeats.reports = []pipeline.Report{{Revision: o.revision.ID()}}
		return o
	}
	before := inForce(observed(1, 1)).next(Status{})
	failed := observed(1, 1)
	failed.publishErr = errors.New("forbidden")
	s := failed.next(before)
	if !meta.IsStatusConditionTrue(s.Conditions, InForce) || !meta.IsStatusConditionFalse(s.Conditions, Published) ||
		!meta.IsStatusConditionFalse(s.Conditions, Ready) {
		t.Errorf("got %+v", s.Conditions)
	}
	edited := observed(2, 1) // of a field that is not published
	edited.heartbeats.reports = []pipeline.Report{{Revision: "starting"}}
	if s = edited.next(before); !meta.IsStatusConditionTrue(s.Conditions, InForce) {
		t.Errorf("another generation of the same revision: got %+v", s.Conditions)
	}
	bounds := observed(1, 2) // the revision changes with the bounds, too, and then in the same generation
	bounds.publishErr = failed.publishErr
	s = bounds.next(before)
	if c := meta.FindStatusCondition(s.Conditions, InForce); c.Reason != ReasonNotPublished {
		t.Errorf("another revision: got %+v", c)
	}
}

func testStatusPipelineThatIsNoLongerSelected(t *testing.T) {
	t.Parallel()
	before := observed(1, 1).next(Status{})
	s := observation{generation: 1, selected: "other"}.next(before)
	if len(s.Conditions) != 1 || s.Conditions[0].Reason != ReasonNotSelected || len(s.History) != 1 || s.Revision != "" {
		t.Errorf("got %+v", s)
	}
}
