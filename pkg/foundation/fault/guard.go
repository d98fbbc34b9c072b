package fault

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrPanic is wrapped by the error that [Guard] makes of a panic.
var ErrPanic = errors.New("panic")

// Guard calls f and returns its error. If f panics, the error wraps [ErrPanic] and its text has the panic's value and the
// stack: it is for logs. It is not classified, so it is Internal.
func Guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return f()
}
