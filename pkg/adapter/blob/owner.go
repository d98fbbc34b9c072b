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

// OwnerKey is the key of the owner mark: an object with the id of the installation that owns the bucket. No image has a key
// with this prefix.
const OwnerKey = ".vitrine/installation"

// maxOwner is the maximum length of the owner mark, in bytes.
const maxOwner = 256

// Owner returns the id of the installation that owns the bucket, or "" if the bucket has no owner mark. Its error is
// fault.Unavailable or that of ctx.
func (b *Bucket) Owner(ctx context.Context) (string, error) {
	body, _, err := b.Get(ctx, OwnerKey)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read the owner mark: %w", err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxOwner))
	if err != nil {
		return "", fmt.Errorf("read the owner mark: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Claim writes installation into the owner mark if the bucket has none, and returns the owner. The mark never changes, so
// of several concurrent claims one succeeds. Its error is fault.Unavailable or that of ctx.
func (b *Bucket) Claim(ctx context.Context, installation string) (owner string, err error) {
	if owner, err = b.Owner(ctx); owner != "" || err != nil {
		return owner, err
	}
	err = b.do(ctx, "claim", "write owner mark", func() error {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.cfg.Bucket, Key: aws.String(OwnerKey), IfNoneMatch: aws.String("*"), Body: strings.NewReader(installation),
			ContentLength: aws.Int64(int64(len(installation))), ContentType: aws.String("text/plain"),
			CacheControl: aws.String("no-store"),
		})
		switch apiCode(err) {
		case "PreconditionFailed", "ConditionalRequestConflict": // another claim was first; its owner is read below
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
