package codec

import (
	"errors"
	"time"

	"vitrine.io/pkg/foundation/media"
)

// errDeadline is the cause of a context that ended at the image's deadline, not because its caller cancelled it.
var errDeadline = errors.New("the image's deadline has passed")

// errClosed is returned while the pool closes and after.
var errClosed = errors.New("the codec pool is closed")

// unavailable returns the Failure for a codec that could not be started.
func unavailable(cause error, retryAfter time.Duration) *media.Failure {
	return &media.Failure{
		Code: media.CodecUnavailable, Detail: "no codec could be started", Cause: cause, RetryAfter: retryAfter,
	}
}
