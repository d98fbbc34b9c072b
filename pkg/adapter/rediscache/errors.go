package rediscache

import (
	"context"
	"fmt"

	"vitrine.io/pkg/foundation/fault"
)

// unavailable classifies an error of Redis or of the way to it. The end of the caller's own context is not a fault.
func unavailable(ctx context.Context, verb string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", verb, ended)
	}
	return fault.Wrap(fmt.Errorf("%s: %w", verb, err), fault.Unavailable, "cache_unavailable",
		"the cache does not answer")
}
