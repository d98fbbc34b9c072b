package blob

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"vitrine.io/pkg/foundation/fault"
)

// OwnerKey is the object that says whose bucket this is: the id of one database. It lies where no picture does.
const OwnerKey = ".vitrine/installation"

// maxOwner bounds what is read of the mark, in bytes.
const maxOwner = 256

// Owner returns the id of the installation that the bucket is marked with, or "" if it has no mark.
func (b *Bucket) Owner(ctx context.Context) (string, error) {
	body, _, err := b.Get(ctx, OwnerKey)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read the bucket's mark: %w", err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxOwner))
	if err != nil {
		return "", fmt.Errorf("read the bucket's mark: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Claim marks the bucket as that installation's, if it has no mark, and returns whose it is then. A mark is never changed:
// of several that claim at once, one wins.
func (b *Bucket) Claim(ctx context.Context, installation string) (owner string, err error) {
	if owner, err = b.Owner(ctx); owner != "" || err != nil {
		return owner, err
	}
	err = b.do(ctx, "claim", "mark the bucket", func() error {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.cfg.Bucket, Key: aws.String(OwnerKey), IfNoneMatch: aws.String("*"), Body: strings.NewReader(installation),
			ContentLength: aws.Int64(int64(len(installation))), ContentType: aws.String("text/plain"),
			CacheControl: aws.String("no-store"),
		})
		switch apiCode(err) {
		case "PreconditionFailed", "ConditionalRequestConflict": // somebody else was quicker: who, is read below
			return nil
		default:
			return err
		}
	})
	if err != nil {
		return "", err
	}
	return b.Owner(ctx)
}
