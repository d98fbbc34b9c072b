// Package backoff waits: for a duration that the end of a context cuts short, and before a repetition for a pause that
// doubles with each failure and is partly random, so that processes that failed together do not come back together.
package backoff
