package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"vitrine.io/pkg/foundation/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKinds(t *testing.T) {
	t.Parallel()
	var names []string
	for i, k := range fault.Kinds() {
		if int(k) != i {
			t.Errorf("kind %d is at index %d: a kind is missing or repeated", int(k), i)
		}
		names = append(names, k.String())
	}
	want := []string{"internal", "invalid", "not_found", "conflict", "unauthorized", "forbidden", "too_many", "unavailable"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	next := fault.Kind(len(names))
	if got, want := next.String(), fmt.Sprintf("kind(%d)", len(names)); got != want {
		t.Errorf("the kind after the last is %q, want %q: Kinds does not list it", got, want)
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	t.Run("wrapped_error", testKindOfWrappedError)
	t.Run("unclassified_error", testKindOfUnclassifiedError)
	t.Run("nil_error", testKindOfNilError)
	t.Run("classified_twice", testKindOfClassifiedTwice)
}

func testKindOfWrappedError(t *testing.T) {
	t.Parallel()
	for _, want := range fault.Kinds() {
		err := error(fault.New(want, "some_code", "some detail"))
		for range 3 {
			err = fmt.Errorf("load product: %w", errors.Join(io.EOF, err))
		}
		if got := fault.KindOf(err); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		for _, other := range fault.Kinds() {
			if got := fault.Is(err, other); got != (other == want) {
				t.Errorf("a %s error is %s: %v", want, other, got)
			}
		}
		if got := fault.CodeOf(err); got != "some_code" {
			t.Errorf("got code %q", got)
		}
	}
}

func testKindOfUnclassifiedError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"other_error":         {io.ErrUnexpectedEOF, fault.Internal},
		"deadline":            {fmt.Errorf("read row: %w", context.DeadlineExceeded), fault.Unavailable},
		"cancelled":           {fmt.Errorf("read row: %w", context.Canceled), fault.Internal},
		"classified_deadline": {fault.Wrap(context.DeadlineExceeded, fault.TooMany, "slow", "slow down"), fault.TooMany},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := fault.KindOf(c.err); got != c.want || !fault.Is(c.err, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if fault.From(io.EOF) != nil || fault.CodeOf(io.EOF) != "" {
		t.Error("an unclassified error has a code")
	}
}

func testKindOfNilError(t *testing.T) {
	t.Parallel()
	for _, k := range fault.Kinds() {
		if fault.Is(nil, k) {
			t.Errorf("nil is %s", k)
		}
	}
	if fault.From(nil) != nil || fault.CodeOf(nil) != "" {
		t.Error("nil is classified")
	}
}

func testKindOfClassifiedTwice(t *testing.T) {
	t.Parallel()
	inner := fault.New(fault.Conflict, "email_taken", "another user has this address")
	outer := fault.Wrap(inner, fault.Unavailable, "store_down", "try later")
	if got := fault.From(fmt.Errorf("create user: %w", outer)); got != outer {
		t.Errorf("got %v, want the outermost classification", got)
	}
	if !errors.Is(outer, error(inner)) {
		t.Error("the cause is lost")
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	cause := errors.New("dial 10.0.0.7: refused")
	err := fault.Wrap(cause, fault.Unavailable, "database_down", "try again later")
	if got, want := err.Error(), "database_down: try again later: dial 10.0.0.7: refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err.Detail != "try again later" || err.Code != "database_down" || !errors.Is(err, cause) {
		t.Errorf("got %+v", err)
	}
	plain := fault.New(fault.NotFound, "product_not_found", "there is no such product")
	if got, want := plain.Error(), "product_not_found: there is no such product"; got != want || plain.Unwrap() != nil {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInvalidFields(t *testing.T) {
	t.Parallel()
	if err := fault.InvalidFields(nil); err != nil { // an interface that holds a nil pointer would not be nil
		t.Errorf("no wrong field gives %v", err)
	}
	fields := []fault.Field{
		{Path: "email", Code: "not_an_address", Detail: "must be an address"},
		{Path: "name", Code: "too_long", Detail: "must have at most 200 characters"},
	}
	err := fault.InvalidFields(fields)
	if got := fault.From(err); got.Kind != fault.Invalid || !reflect.DeepEqual(got.Fields, fields) {
		t.Errorf("got %+v", fault.From(err))
	}
	want := "invalid_fields: one or more fields are not valid; email: must be an address; " +
		"name: must have at most 200 characters"
	if got := err.Error(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
