package fault_test

import (
	"reflect"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

func TestChecker(t *testing.T) {
	t.Parallel()
	t.Run("nothing_wrong_is_nil", func(t *testing.T) {
		t.Parallel()
		var c fault.Checker
		c.Check(true, "A", "required", "is missing")
		c.Range(true, "B", "at least %d", 1)
		c.Positive("C", time.Nanosecond)
		if got := c.Fields(); got != nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("wrong_fields_keep_their_order", func(t *testing.T) {
		t.Parallel()
		var c fault.Checker
		c.Add("A", "malformed", "%q is no address", "x")
		c.Check(false, "B", "required", "is missing")
		c.Range(false, "C", "at least %d", 1)
		c.Positive("D", 0)
		c.Positive("E", -time.Second)
		want := []fault.Field{
			{Path: "A", Code: "malformed", Detail: `"x" is no address`},
			{Path: "B", Code: "required", Detail: "is missing"},
			{Path: "C", Code: "out_of_range", Detail: "at least 1"},
			{Path: "D", Code: "out_of_range", Detail: "must be above zero"},
			{Path: "E", Code: "out_of_range", Detail: "must be above zero"},
		}
		if got := c.Fields(); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}
