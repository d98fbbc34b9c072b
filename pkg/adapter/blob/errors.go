package blob

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/smithy-go"

	"vitrine.io/pkg/foundation/fault"
)

// classify adds an error kind to an error of the SDK. If ctx has ended, it returns the error of ctx.
func classify(ctx context.Context, verb string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", verb, ended)
	}
	err = fmt.Errorf("%s: %w", verb, err)
	if fault.From(err) != nil {
		return err
	}
	switch apiCode(err) {
	case "NoSuchKey", "NotFound":
		return fault.Wrap(err, fault.NotFound, "object_not_found", "there is no such object")
	case "NoSuchBucket":
		return bucketMissing(err)
	case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return fault.Wrap(err, fault.Unavailable, "storage_denied", "the object store refuses our credentials")
	default:
		return fault.Wrap(err, fault.Unavailable, "storage_unavailable", "the object store fails")
	}
}

func bucketMissing(err error) error {
	return fault.Wrap(err, fault.Unavailable, "bucket_missing", "the bucket does not exist")
}

// apiCode returns the store's error code, or "" if the store did not answer. The answer to a HEAD has no body, so the SDK
// derives the code from the status: NotFound may then mean the object or the bucket.
func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
