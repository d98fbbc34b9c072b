// Package backoff has waits that end with a context, and delays between retries that double with each failure. The delays
// are partly random, so that processes that failed together do not retry together.
package backoff
