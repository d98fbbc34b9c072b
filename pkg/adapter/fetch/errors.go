package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"vitrine.io/pkg/foundation/media"
)

// maxRetryAfter is the maximum for Retry-After, so that a source cannot delay an image indefinitely.
const maxRetryAfter = time.Hour

func forbidden(detail string, cause error) *media.Failure {
	return media.Fail(media.URLForbidden, detail, cause)
}

func tooSlow(detail string) *media.Failure {
	return media.Fail(media.Timeout, detail, nil)
}

func tooLarge(limit int64) *media.Failure {
	return media.Fail(media.TooLarge, fmt.Sprintf("the source has more than %d bytes", limit), nil)
}

// classify returns the *media.Failure for err. parent is the caller's context; if it has ended, its error is returned
// unchanged. download is derived from parent, and the cause of its end is a *media.Failure.
func classify(parent, download context.Context, err error) error {
	if parent.Err() != nil {
		return parent.Err()
	}
	if f := media.FailureOf(context.Cause(download)); f != nil {
		return f
	}
	if f := media.FailureOf(err); f != nil {
		return f
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, whose query may contain a signature
	}
	if isTimeout(err) {
		return media.Fail(media.Timeout, "the source took too long to answer", err)
	}
	return media.Fail(media.ConnectFailed, "the connection to the source broke", err)
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// statusFailure returns the *media.Failure for a status other than 200.
func statusFailure(resp *http.Response, now time.Time) *media.Failure {
	detail := "the source answered " + strconv.Itoa(resp.StatusCode)
	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		f := media.Fail(media.SourceUnavailable, detail, nil)
		f.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
		return f
	default:
		return media.Fail(media.HTTPStatus, detail, nil)
	}
}

// retryAfter parses the two forms of the header (RFC 9110, 10.2.3), seconds and a date. The result is between 0 and
// maxRetryAfter.
func retryAfter(header string, now time.Time) time.Duration {
	var wait time.Duration
	seconds, err := strconv.ParseUint(header, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // for a number out of range, seconds has the maximum
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
