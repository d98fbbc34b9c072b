package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

// CacheControl goes with every object: its key will never name other bytes, so it may be kept for a year.
const CacheControl = "public, max-age=31536000, immutable"

// Bucket is one bucket of an object store. All methods may be called concurrently.
type Bucket struct {
	cfg     Config
	client  *s3.Client
	web     *http.Client
	metrics *metrics
	log     *zap.Logger
}

// ObjectInfo describes an object. A listing knows Key, Size, ETag and Modified only.
type ObjectInfo struct {
	Key          string
	Size         int64 // bytes
	ContentType  string
	CacheControl string
	ETag         string // with its quotes
	Modified     time.Time
}

// New returns the bucket that cfg names. Nothing is asked of the store yet.
func New(cfg Config, reg prometheus.Registerer, log *zap.Logger) (*Bucket, error) {
	client, web, err := newClient(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Bucket{cfg: cfg, client: client, web: web, metrics: newMetrics(reg), log: log}, nil
}

// Close gives idle connections back. Operations after it open new ones.
func (b *Bucket) Close() { b.web.CloseIdleConnections() }

// Put stores an object of size bytes, for good and for everyone (see CacheControl). body is read from its start, more than
// once. Storing the same again changes nothing.
func (b *Bucket) Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	err := b.do(ctx, "put", "put object", func() error {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.cfg.Bucket, Key: &key, Body: body, ContentLength: &size,
			ContentType: &contentType, CacheControl: aws.String(CacheControl),
		})
		return err
	})
	if err == nil {
		failpoint.Hit(failpoint.ObjectStored)
		b.metrics.sent.Add(float64(size))
	}
	return err
}

// Get opens an object. The caller closes it, and reads it within Config.AttemptTimeout. fault.NotFound if it is not there.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, ObjectInfo, error) {
	var out *s3.GetObjectOutput
	err := b.do(ctx, "get", "get object", func() (err error) {
		out, err = b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.cfg.Bucket, Key: &key})
		return err
	})
	if err != nil {
		return nil, ObjectInfo{}, err
	}
	return &counted{body: out.Body, bytes: b.metrics.received}, ObjectInfo{
		Key: key, Size: aws.ToInt64(out.ContentLength), ContentType: aws.ToString(out.ContentType),
		CacheControl: aws.ToString(out.CacheControl), ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified),
	}, nil
}

// Head describes an object. fault.NotFound if it is not there.
func (b *Bucket) Head(ctx context.Context, key string) (ObjectInfo, error) {
	var out *s3.HeadObjectOutput
	err := b.do(ctx, "head", "head object", func() (err error) {
		out, err = b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.cfg.Bucket, Key: &key})
		return err
	})
	if err != nil {
		return ObjectInfo{}, err
	}
	return ObjectInfo{
		Key: key, Size: aws.ToInt64(out.ContentLength), ContentType: aws.ToString(out.ContentType),
		CacheControl: aws.ToString(out.CacheControl), ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified),
	}, nil
}

// List calls fn with each object below prefix, "" being all, in the order of their keys' bytes. It asks for a thousand at a
// time, so fn may take long and may delete. An error of fn ends it and is returned as it is.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(ObjectInfo) error) error {
	return b.pages(ctx, prefix, func(page []types.Object) error {
		for _, o := range page {
			info := ObjectInfo{
				Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag),
				Modified: aws.ToTime(o.LastModified),
			}
			if err := fn(info); err != nil {
				return err
			}
		}
		return nil
	})
}

// Page returns up to limit objects below prefix whose keys come after that one, in the order of their keys' bytes. more says
// that there are others.
func (b *Bucket) Page(ctx context.Context, prefix, after string, limit int) (found []maintenance.Object, more bool, err error) {
	input := &s3.ListObjectsV2Input{Bucket: &b.cfg.Bucket, Prefix: &prefix, StartAfter: &after}
	for more = true; more && limit > len(found); { // a page may be empty and others follow
		input.MaxKeys = aws.Int32(int32(min(limit-len(found), pageSize)))
		var page *s3.ListObjectsV2Output
		err := b.do(ctx, "list", "list objects", func() (err error) {
			page, err = b.client.ListObjectsV2(ctx, input)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		for _, o := range page.Contents {
			found = append(found, maintenance.Object{
				Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified),
			})
		}
		more, input.ContinuationToken = aws.ToBool(page.IsTruncated), page.NextContinuationToken
	}
	return found, more, nil
}

// pageSize is the most objects that a store lists in one answer.
const pageSize = 1000

// DeletePrefix deletes every object below prefix, which ends in a slash. None there is no error. When it fails, some may be
// gone: call it again.
func (b *Bucket) DeletePrefix(ctx context.Context, prefix string) error {
	if strings.Trim(prefix, "/") == "" || !strings.HasSuffix(prefix, "/") {
		return fault.New(fault.Internal, "bad_prefix", fmt.Sprintf("%q does not name a directory of objects", prefix))
	}
	return b.pages(ctx, prefix, func(page []types.Object) error { return b.deleteAll(ctx, page) })
}

// pages calls fn with each page of the objects below prefix that is not empty.
func (b *Bucket) pages(ctx context.Context, prefix string, fn func([]types.Object) error) error {
	pager := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.cfg.Bucket, Prefix: &prefix})
	for pager.HasMorePages() {
		var page *s3.ListObjectsV2Output
		err := b.do(ctx, "list", "list objects", func() (err error) {
			page, err = pager.NextPage(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if len(page.Contents) == 0 {
			continue
		}
		if err := fn(page.Contents); err != nil {
			return err
		}
	}
	return nil
}

// deleteAll deletes one page in one request. The store answers for each object; the first refusal is the error.
func (b *Bucket) deleteAll(ctx context.Context, page []types.Object) error {
	ids := make([]types.ObjectIdentifier, len(page))
	for i, o := range page {
		ids[i] = types.ObjectIdentifier{Key: o.Key}
	}
	return b.do(ctx, "delete", "delete objects", func() error {
		out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: &b.cfg.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
		}, withContentMD5)
		if err != nil {
			return err
		}
		return refused(out.Errors)
	})
}

// withContentMD5 adds the one checksum of a batch deletion that every store has always accepted; the SDK sends CRC32.
func withContentMD5(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
}

// refused returns the first of the errors that is not that the object was gone already.
func refused(refusals []types.Error) error {
	for _, r := range refusals {
		if code := aws.ToString(r.Code); code != "NoSuchKey" {
			return fmt.Errorf("object %s: %s: %s", aws.ToString(r.Key), code, aws.ToString(r.Message))
		}
	}
	return nil
}

// do runs one operation, classifies its error, and counts it.
func (b *Bucket) do(ctx context.Context, operation, verb string, run func() error) error {
	return b.metrics.observe(operation, func() error {
		if err := run(); err != nil {
			return classify(ctx, verb, err)
		}
		return nil
	})
}

// counted counts what is read of an object.
type counted struct {
	body  io.ReadCloser
	bytes prometheus.Counter
}

// Read implements io.Reader. A body that ends early, or is not read in time, is fault.Unavailable.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.bytes.Add(float64(n))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		err = fault.Wrap(err, fault.Unavailable, "storage_unavailable", "the object store broke off")
	}
	return n, err
}

// Close implements io.Closer.
func (c *counted) Close() error { return c.body.Close() }
