package devstack

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3afero"
	"github.com/spf13/afero"
)

// disk is gofakes3's file store with corrections. In the original an incomplete upload leaves an object without metadata,
// which makes every listing of the bucket fail; a listing is not sorted by key and has no pages; and an object is served
// with the headers of the request that stored it.
type disk struct {
	*s3afero.MultiBucketBackend
}

// maxObject is the maximum size of an upload, which is held in memory, in bytes.
const maxObject = 256 << 20

// bucketsDir is the directory of s3afero with one directory for each bucket.
const bucketsDir = "buckets"

func openDisk(files afero.Fs) (*disk, error) {
	inner, err := s3afero.MultiBucket(files)
	if err != nil {
		return nil, err
	}
	d := &disk{inner}
	if err := d.repair(files); err != nil {
		return nil, fmt.Errorf("repair objects: %w", err)
	}
	return d, nil
}

// repair removes objects without metadata. A process that ends between the two writes of an upload leaves such an object;
// the upload was not acknowledged.
func (d *disk) repair(files afero.Fs) error {
	return afero.Walk(files, bucketsDir, func(path string, info fs.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		bucket, key, ok := strings.Cut(strings.TrimPrefix(filepath.ToSlash(path), bucketsDir+"/"), "/")
		if !ok {
			return nil
		}
		if _, err := d.HeadObject(bucket, key); err != nil {
			_, err = d.DeleteObject(bucket, key)
			return err
		}
		return nil
	})
}

// PutObject implements gofakes3.Backend. It writes nothing before the body is complete.
func (d *disk) PutObject(bucket, key string, meta map[string]string, body io.Reader, size int64,
	conditions *gofakes3.PutConditions,
) (gofakes3.PutObjectResult, error) {
	if size > maxObject {
		return gofakes3.PutObjectResult{}, gofakes3.ErrorMessage("EntityTooLarge", "an object is too large")
	}
	whole, err := gofakes3.ReadAll(body, size)
	if errors.Is(err, io.EOF) { // from io.ReadFull, for an empty body
		err = gofakes3.ErrIncompleteBody
	}
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	return d.MultiBucketBackend.PutObject(bucket, key, objectHeaders(meta), bytes.NewReader(whole), size, conditions)
}

// objectHeaders returns the headers of a request that belong to the object.
func objectHeaders(meta map[string]string) map[string]string {
	kept := map[string]string{}
	for name, value := range meta {
		switch {
		case name == keptCacheControl:
			kept["Cache-Control"] = value
		case strings.HasPrefix(name, "X-Amz-Meta-"), !strings.HasPrefix(name, "X-Amz-"):
			kept[name] = value
		}
	}
	return kept
}

// ListBucket implements gofakes3.Backend. It sorts by the bytes of the keys, and returns pages.
func (d *disk) ListBucket(bucket string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage,
) (*gofakes3.ObjectList, error) {
	all, err := d.MultiBucketBackend.ListBucket(bucket, prefix, gofakes3.ListBucketPage{})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all.Contents, func(a, b *gofakes3.Content) int { return cmp.Compare(a.Key, b.Key) })
	if page.HasMarker {
		all.Contents = slices.DeleteFunc(all.Contents, func(c *gofakes3.Content) bool { return c.Key <= page.Marker })
	}
	if limit := int(page.MaxKeys); limit > 0 && len(all.Contents) > limit {
		all.Contents = all.Contents[:limit]
		all.IsTruncated = true
		all.NextMarker = all.Contents[limit-1].Key
	}
	return all, nil
}
