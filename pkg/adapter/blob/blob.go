package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

// CacheControl is the Cache-Control header of every object that Put stores. It allows one year, because the bytes under a
// key never change. NoStore is that of the objects that PutNoStore stores, and of originals.
const (
	CacheControl = "public, max-age=31536000, immutable"
	NoStore      = "no-store"
)

// Bucket is one bucket of an object store. All methods may be called concurrently.
type Bucket struct {
	cfg     Config
	client  *s3.Client
	http    *http.Client
	metrics *metrics
	log     *zap.Logger
	control string // the Cache-Control header of its objects
}

// ObjectInfo describes an object.
type ObjectInfo struct {
	Key          string
	Size         int64 // bytes
	ContentType  string
	CacheControl string
	ETag         string // with the quotes
	Modified     time.Time
}

// New returns the bucket that cfg names. It reads the CA file and does not connect. It fails if a setting is not valid.
func New(cfg Config, reg prometheus.Registerer, log *zap.Logger) (*Bucket, error) {
	client, httpClient, err := newClient(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Bucket{cfg: cfg, client: client, http: httpClient, metrics: newMetrics(reg), log: log, control: CacheControl}, nil
}

// Originals returns the bucket that cfg names for originals, or nil. It shares connections and metrics with b. Its objects
// have "Cache-Control: no-store", and nothing makes them public.
func (b *Bucket) Originals() *Bucket {
	if b.cfg.OriginalsBucket == "" {
		return nil
	}
	originals := *b
	originals.control = NoStore
	originals.cfg.Bucket, originals.cfg.OriginalsBucket = b.cfg.OriginalsBucket, ""
	originals.cfg.PublicURL, originals.cfg.PublicRead = "", false
	return &originals
}

// Close closes idle connections. Later operations open new ones.
func (b *Bucket) Close() { b.http.CloseIdleConnections() }

// Put stores an object of size bytes with the Cache-Control of the bucket. For each attempt it reads body from its start. It
// may be repeated with the same object. Its error is fault.Unavailable or that of ctx.
func (b *Bucket) Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	return b.put(ctx, key, contentType, b.control, body, size)
}

// PutNoStore is Put for an object that is deleted soon, so that no cache may keep it.
func (b *Bucket) PutNoStore(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	return b.put(ctx, key, contentType, NoStore, body, size)
}

func (b *Bucket) put(ctx context.Context, key, contentType, cacheControl string, body io.ReadSeeker, size int64) error {
	err := b.do(ctx, "put", "put object", func() error {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.cfg.Bucket, Key: &key, Body: body, ContentLength: &size,
			ContentType: &contentType, CacheControl: &cacheControl,
		})
		return err
	})
	if err == nil {
		failpoint.Hit(failpoint.ObjectStored)
		b.metrics.sent.Add(float64(size))
	}
	return err
}

// Get opens an object. The caller closes it, and has to read it within Config.AttemptTimeout. Its error is fault.NotFound
// if the object is missing, else fault.Unavailable or that of ctx.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, ObjectInfo, error) {
	var out *s3.GetObjectOutput
	err := b.do(ctx, "get", "get object", func() (err error) {
		out, err = b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.cfg.Bucket, Key: &key})
		return err
	})
	if err != nil {
		return nil, ObjectInfo{}, err
	}
	return &countingBody{out.Body, b.metrics.received}, ObjectInfo{
		Key: key, Size: aws.ToInt64(out.ContentLength), ContentType: aws.ToString(out.ContentType),
		CacheControl: aws.ToString(out.CacheControl), ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified),
	}, nil
}

// Read returns the body of an object of at most limit bytes. It needs little more memory than that. Its error is that of
// Get, or fault.Conflict if the object is larger.
func (b *Bucket) Read(ctx context.Context, key string, limit int64) ([]byte, error) {
	body, info, err := b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var read bytes.Buffer
	read.Grow(int(min(info.Size, limit)) + bytes.MinRead) // so that it never grows again
	if _, err := read.ReadFrom(io.LimitReader(body, limit+1)); err != nil {
		return nil, classify(ctx, "read object", err)
	}
	if int64(read.Len()) > limit {
		return nil, fault.New(fault.Conflict, "object_too_large", "the object "+key+" is larger than expected")
	}
	return read.Bytes(), nil
}

// Page returns up to limit objects below prefix whose keys follow after, in the byte order of the keys. more reports whether
// further objects exist.
func (b *Bucket) Page(
	ctx context.Context, prefix, after string, limit int,
) (found []maintenance.Object, more bool, err error) {
	input := &s3.ListObjectsV2Input{Bucket: &b.cfg.Bucket, Prefix: &prefix, StartAfter: &after}
	for more = true; more && limit > len(found); { // a page may be empty although others follow
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

// pageSize is the maximum number of objects in one answer of a store.
const pageSize = 1000

// do runs one operation, classifies its error and records its metrics.
func (b *Bucket) do(ctx context.Context, operation, verb string, run func() error) error {
	return b.metrics.observe(operation, func() error {
		if err := run(); err != nil {
			return classify(ctx, verb, err)
		}
		return nil
	})
}

// countingBody is the body of an object. It counts the bytes that are read.
type countingBody struct {
	io.ReadCloser
	bytes prometheus.Counter
}

// Read implements io.Reader. Its error is fault.Unavailable if the body ends early or Config.AttemptTimeout has passed.
func (c *countingBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(float64(n))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
		err = fault.Wrap(err, fault.Unavailable, "storage_unavailable", "the object store ended the body early")
	}
	return n, err
}
