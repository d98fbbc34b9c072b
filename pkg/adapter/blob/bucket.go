package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
)

// How often EnsureBucket checks and creates the bucket while another process creates it, and the pause between.
const (
	createAttempts = 5
	createPause    = 300 * time.Millisecond
	defaultRegion  = "us-east-1" // AWS rejects this region, its default, when a bucket is created
)

// Ping returns nil if the bucket exists and this process may use it, else fault.Unavailable or the error of ctx.
func (b *Bucket) Ping(ctx context.Context) error {
	return b.metrics.observe("ping", func() error {
		_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.cfg.Bucket})
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil && apiCode(err) == "NotFound":
			return bucketMissing(fmt.Errorf("ping bucket: %w", err))
		default:
			return classify(ctx, "ping bucket", err)
		}
	})
}

// EnsureBucket returns nil if the bucket exists. It creates a missing bucket if Config.CreateBucket is set, and with
// Config.PublicRead allows anonymous clients to read objects by their keys, but not to list them. It may be called
// concurrently. Its error is fault.Unavailable or that of ctx.
func (b *Bucket) EnsureBucket(ctx context.Context) error {
	var err error
	for attempt := range createAttempts {
		if attempt > 0 && !backoff.Sleep(ctx, createPause) {
			return classify(ctx, "create bucket", err)
		}
		if err = b.Ping(ctx); err == nil {
			break
		}
		if !b.cfg.CreateBucket || apiCode(err) != "NotFound" {
			return err
		}
		if err = b.create(ctx); err == nil {
			b.log.Info("bucket created", zap.String("bucket", b.cfg.Bucket))
			break
		}
		switch apiCode(err) {
		case "BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted": // another process creates it: check again
		default:
			return err
		}
	}
	if err != nil || !b.cfg.PublicRead {
		return err
	}
	return b.allowPublicRead(ctx)
}

func (b *Bucket) create(ctx context.Context) error {
	in := &s3.CreateBucketInput{Bucket: &b.cfg.Bucket}
	if b.cfg.Region != defaultRegion {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(b.cfg.Region),
		}
	}
	return b.do(ctx, "create", "create bucket", func() error {
		_, err := b.client.CreateBucket(ctx, in)
		return err
	})
}

// allowPublicRead sets a policy that allows anonymous reads of objects.
func (b *Bucket) allowPublicRead(ctx context.Context) error {
	policy, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": []any{map[string]any{
			"Effect": "Allow", "Principal": map[string]any{"AWS": []string{"*"}},
			"Action": []string{"s3:GetObject"}, "Resource": []string{"arn:aws:s3:::" + b.cfg.Bucket + "/*"},
		}},
	})
	if err != nil {
		return fmt.Errorf("write bucket policy: %w", err)
	}
	return b.do(ctx, "policy", "set bucket policy", func() error {
		_, err := b.client.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{
			Bucket: &b.cfg.Bucket, Policy: aws.String(string(policy)),
		}, withContentMD5)
		return err
	})
}
