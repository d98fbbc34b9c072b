package rediscache

import (
	"context"
	"fmt"

	"vitrine.io/pkg/foundation/fault"
)

// unavailable classifies an error of Redis or of the connection to it as fault.Unavailable. If ctx has ended, its error is
// returned unclassified.
func unavailable(ctx context.Context, verb string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", verb, ended)
	}
	return fault.Wrap(fmt.Errorf("%s: %w", verb, err), fault.Unavailable, "cache_unavailable",
		"the cache does not answer")
}
