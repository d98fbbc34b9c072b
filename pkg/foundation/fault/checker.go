package fault

import (
	"fmt"
	"time"
)

// codeOutOfRange is the code of a value that is too small or too large.
const codeOutOfRange = "out_of_range"

// Checker collects wrong fields. The zero value is ready to use. format and args are those of package fmt.
type Checker struct{ fields []Field }

// Add adds a wrong field.
func (c *Checker) Add(path, code, format string, args ...any) {
	c.fields = append(c.fields, Field{Path: path, Code: code, Detail: fmt.Sprintf(format, args...)})
}

// Check adds a wrong field unless ok.
func (c *Checker) Check(ok bool, path, code, format string, args ...any) {
	if !ok {
		c.Add(path, code, format, args...)
	}
}

// Range adds a wrong field with the code out_of_range unless ok.
func (c *Checker) Range(ok bool, path, format string, args ...any) {
	c.Check(ok, path, codeOutOfRange, format, args...)
}

// Positive adds a wrong field with the code out_of_range unless d is above zero.
func (c *Checker) Positive(path string, d time.Duration) {
	c.Range(d > 0, path, "must be above zero")
}

// Fields returns the wrong fields in the order in which they were added, nil if there are none.
func (c *Checker) Fields() []Field { return c.fields }
