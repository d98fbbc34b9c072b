package fault_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/fault"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	t.Run("returns_the_error_as_it_is", func(t *testing.T) {
		t.Parallel()
		for _, want := range []error{nil, io.EOF} {
			if got := fault.Guard(func() error { return want }); !errors.Is(got, want) || errors.Is(got, fault.ErrPanic) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	})
	t.Run("panic_is_an_internal_error_with_its_stack", func(t *testing.T) {
		t.Parallel()
		err := fault.Guard(func() error { panic("nil map") })
		if !errors.Is(err, fault.ErrPanic) || !fault.Is(err, fault.Internal) {
			t.Fatalf("got %v", err)
		}
		if text := err.Error(); !strings.HasPrefix(text, "panic: nil map\n") || !strings.Contains(text, "guard_test.go") {
			t.Errorf("got %q, want the value and the stack", text)
		}
	})
}
