package blob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// deleteConcurrency is the number of prefixes that one DeletePrefixes lists at a time.
const deleteConcurrency = 8

// DeletePrefix is DeletePrefixes for one prefix.
func (b *Bucket) DeletePrefix(ctx context.Context, prefix string) error {
	return b.DeletePrefixes(ctx, []string{prefix})[0]
}

// DeletePrefixes deletes every object below each of the prefixes, which must end in slashes. It lists each prefix, and
// deletes up to 1000 keys with one request, which may have keys of several prefixes. It returns one error for each prefix,
// in their order. The error of one does not affect the others: fault.Internal if the prefix is not valid, else
// fault.Unavailable or that of ctx. It is no error if there is no object. After an error some objects of the prefix may be
// deleted, and the caller has to repeat it.
func (b *Bucket) DeletePrefixes(ctx context.Context, prefixes []string) []error {
	d := &deletion{bucket: b, errs: make([]error, len(prefixes))}
	var group errgroup.Group
	group.SetLimit(deleteConcurrency)
	for i, prefix := range prefixes {
		group.Go(func() error {
			d.list(ctx, i, prefix)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	d.send(ctx, d.keys)
	return d.errs
}

// deletion is one call of DeletePrefixes.
type deletion struct {
	bucket *Bucket
	mu     sync.Mutex
	keys   []listedKey // listed and not sent yet; fewer than pageSize, except within add
	errs   []error     // the first error of each prefix
}

// listedKey is a key with the index of its prefix.
type listedKey struct {
	key    string
	prefix int
}

// list lists the prefix with index i and adds its keys.
func (d *deletion) list(ctx context.Context, i int, prefix string) {
	if strings.Trim(prefix, "/") == "" || !strings.HasSuffix(prefix, "/") {
		d.fail(i, fault.New(fault.Internal, "bad_prefix", fmt.Sprintf("%q does not name a directory of objects", prefix)))
		return
	}
	for after, more := "", true; more; {
		var page []maintenance.Object
		var err error
		if page, more, err = d.bucket.Page(ctx, prefix, after, pageSize); err != nil || len(page) == 0 {
			d.fail(i, err)
			return
		}
		d.add(ctx, i, page)
		after = page[len(page)-1].Key
	}
}

// add adds a page of keys, and sends a request once there are enough keys to fill it.
func (d *deletion) add(ctx context.Context, i int, page []maintenance.Object) {
	d.mu.Lock()
	for _, o := range page {
		d.keys = append(d.keys, listedKey{o.Key, i})
	}
	var full []listedKey
	if len(d.keys) >= pageSize {
		full = slices.Clone(d.keys[:pageSize])
		d.keys = slices.Delete(d.keys, 0, pageSize)
	}
	d.mu.Unlock()
	d.send(ctx, full)
}

// send deletes keys with one request. An object that the store refuses is an error of its own prefix only.
func (d *deletion) send(ctx context.Context, keys []listedKey) {
	if len(keys) == 0 {
		return
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, k := range keys {
		ids[i] = types.ObjectIdentifier{Key: &k.key}
	}
	refused := map[string]error{}
	err := d.bucket.do(ctx, "delete", "delete objects", func() error {
		out, err := d.bucket.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: &d.bucket.cfg.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
		}, withContentMD5)
		if err != nil {
			return err
		}
		for _, e := range out.Errors {
			if code := aws.ToString(e.Code); code != "NoSuchKey" {
				err = fmt.Errorf("object %s: %s: %s", aws.ToString(e.Key), code, aws.ToString(e.Message))
				refused[aws.ToString(e.Key)] = classify(ctx, "delete objects", err)
			}
		}
		return err
	})
	matched := false
	for _, k := range keys {
		if objectErr := refused[k.key]; objectErr != nil {
			d.fail(k.prefix, objectErr)
			matched = true
		}
	}
	if err == nil || matched {
		return
	}
	for _, k := range keys {
		d.fail(k.prefix, err)
	}
}

// fail records err as the error of the prefix with index i, if it is the first one.
func (d *deletion) fail(i int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.errs[i] == nil {
		d.errs[i] = err
	}
}

// withContentMD5 adds a checksum that every store accepts; the SDK sends CRC32, which some stores reject.
func withContentMD5(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
}
