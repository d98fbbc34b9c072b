package blob

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// CheckPrivate returns nil if a client without credentials cannot read the objects of the bucket by their keys. It stores a
// small object below the directory of the originals, and requests it and the owner mark, which must exist. It returns
// fault.Conflict if one of them is returned, and fault.Unavailable, or the error of ctx, if the store does not deny both
// requests with 401 or 403: another status, such as 404, says nothing about the bucket's policy.
func (b *Bucket) CheckPrivate(ctx context.Context) error {
	const text = "this object must not be readable without credentials\n"
	err := b.Put(ctx, maintenance.ProbeKey, "text/plain", strings.NewReader(text), int64(len(text)))
	if err != nil {
		return fmt.Errorf("store the probe of the bucket for originals: %w", err)
	}
	for _, key := range []string{maintenance.ProbeKey, OwnerKey} {
		status, err := b.anonymousGet(ctx, key)
		switch {
		case err != nil:
			return err
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
		case status < http.StatusMultipleChoices:
			return fault.New(fault.Conflict, "bucket_public", fmt.Sprintf("everyone can read the objects of the bucket %s, which is "+
				"for originals: remove its public access (policy, ACL), or name another bucket in VITRINE_S3_ORIGINALS_BUCKET",
				b.cfg.Bucket))
		default:
			return fault.New(fault.Unavailable, "storage_unavailable",
				fmt.Sprintf("the object store answers %d to a request for %s without credentials; 401 or 403 would say that the "+
					"bucket is private", status, key))
		}
	}
	return nil
}

// anonymousGet requests an object without credentials and returns the status of the answer.
func (b *Bucket) anonymousGet(ctx context.Context, key string) (status int, err error) {
	err = b.do(ctx, "anonymous_get", "request an object without credentials", func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.cfg.Public()+key, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := b.http.Do(req)
		if err != nil {
			return err
		}
		status = resp.StatusCode
		return resp.Body.Close()
	})
	return status, err
}
