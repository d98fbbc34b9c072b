package controller_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/foundation/pipeline"
)

// audited is the part of an audit event that says who did what.
type audited struct {
	Verb string
	User struct{ Username string }
	// ObjectRef is nil for requests that concern no object.
	ObjectRef      *struct{ Resource, Subresource, Namespace, Name, APIGroup string }
	ResponseStatus struct{ Code int }
}

// used returns the verbs of the controller's requests in this namespace, as "verb group/resource".
func (c *cluster) used() map[string]bool {
	c.t.Helper()
	file, err := os.Open(c.api.Audit)
	c.must(err)
	defer file.Close()
	verbs := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e audited
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // the last line may be incomplete
		}
		if e.User.Username != "system:serviceaccount:"+c.namespace+":"+account || e.ObjectRef == nil {
			continue
		}
		if e.ResponseStatus.Code == 403 {
			c.t.Errorf("forbidden: %s %+v", e.Verb, *e.ObjectRef)
		}
		if e.ObjectRef.Namespace != c.namespace {
			c.t.Errorf("%s outside of the namespace: %+v", e.Verb, *e.ObjectRef)
		}
		resource := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
		verbs[e.Verb+" "+e.ObjectRef.APIGroup+"/"+resource] = true
	}
	c.must(lines.Err())
	return verbs
}

// granted returns the verbs of the Role, as used does. An apply is a patch for the audit log; for the Role it is a create,
// too, if it makes the object.
func (c *cluster) granted() map[string]bool {
	c.t.Helper()
	var role rbacv1.Role
	c.must(c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: account}, &role))
	verbs := map[string]bool{}
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				if verb == "create" && resource == "configmaps" {
					continue
				}
				verbs[verb+" "+rule.APIGroups[0]+"/"+resource] = true
			}
		}
	}
	return verbs
}

func TestAccess(t *testing.T) {
	t.Parallel()
	t.Run("verbs_used_are_verbs_granted", testAccessVerbsUsedAreVerbsGranted)
	t.Run("create_of_the_config_map_is_needed", testAccessCreateOfTheConfigMapIsNeeded)
}

func testAccessVerbsUsedAreVerbsGranted(t *testing.T) {
	t.Parallel()
	c := newEngine(t, 7)
	beats := c.beats
	c.ended("default-1", noHash) // it has to be deleted
	c.run()
	c.roll(wide(oldPipeline, ""))
	good := wide(newPipeline, "")
	id := c.roll(good).ID()
	c.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	for range 3 { // a repeated Event is a patch of the first
		c.set(good)
		beats.report(id)
		c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
		beats.report("!" + id)
		c.await("default", controller.InForce, metav1.ConditionFalse, controller.ReasonRefused)
	}
	granted := c.granted()
	c.eventually("every granted verb is used", func() error {
		used := c.used()
		for verb := range granted {
			if !used[verb] {
				return fmt.Errorf("%s is granted and not used; used are %v", verb, slices.Sorted(maps.Keys(used)))
			}
		}
		return nil
	})
	for verb := range c.used() {
		if !granted[verb] {
			t.Errorf("%s is used and not granted", verb)
		}
		if strings.Contains(verb, "secrets") || strings.Contains(verb, "pods") {
			t.Errorf("the controller uses %s", verb)
		}
	}
}

// This is why the Role has the verb, which the audit log does not show.
func testAccessCreateOfTheConfigMapIsNeeded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var role rbacv1.Role
	key := client.ObjectKey{Namespace: c.namespace, Name: account}
	c.must(c.admin.Get(t.Context(), key, &role))
	for i, rule := range role.Rules {
		if rule.Resources[0] == "configmaps" {
			role.Rules[i].Verbs = slices.DeleteFunc(rule.Verbs, func(verb string) bool { return verb == "create" })
		}
	}
	c.must(c.admin.Update(t.Context(), &role))
	c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	c.set(document("default", ""))
	status := c.await("default", controller.Published, metav1.ConditionFalse, controller.ReasonPublishFailed)
	ready := meta.FindStatusCondition(status.Conditions, controller.Ready)
	if ready.Reason != controller.ReasonPublishFailed || !strings.Contains(ready.Message, "forbidden") {
		t.Errorf("got %+v", ready)
	}
}
