package fault

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrPanic is wrapped by the error that [Guard] returns for a panic.
var ErrPanic = errors.New("panic")

// Guard calls f and returns its error. If f panics, the error wraps [ErrPanic], and its text, for logs, has the value of the
// panic and the stack. It is not classified, so it is Internal.
func Guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return f()
}
