package codec

import (
	"errors"
	"time"

	"vitrine.io/pkg/foundation/media"
)

// errDeadline is the cause of a context that ended at the image's deadline, and not because its caller gave up.
var errDeadline = errors.New("the picture's deadline has passed")

// errClosed says that the pool is being closed.
var errClosed = errors.New("the codec pool is closed")

// unavailable says that no codec could be had.
func unavailable(cause error, retryAfter time.Duration) *media.Failure {
	return &media.Failure{
		Code: media.CodecUnavailable, Detail: "no codec could be started", Cause: cause, RetryAfter: retryAfter,
	}
}
