// Package blob stores images in one bucket of an S3-compatible store, such as AWS S3 or MinIO.
//
// An object's key is never used for other bytes, so every object is stored with its Content-Type and with
// "Cache-Control: public, max-age=31536000, immutable": browsers and CDNs may keep it for a year. Put, DeletePrefixes
// and EnsureBucket are idempotent.
//
// Objects are deleted only by a prefix that ends in a slash, so "a/1/" never includes "a/10/x". In a bucket with versioning
// a deletion leaves versions behind; a lifecycle rule has to remove them.
//
// One object is not an image: the owner mark under [OwnerKey] contains the id of the installation that owns the bucket.
// It is written once and never changed. The auditor compares it before it lists the bucket.
//
// The SDK retries a failed operation, up to Config.MaxAttempts attempts with pauses under a second, each attempt limited by
// Config.AttemptTimeout. After that the error is fault.Unavailable for every reason except a missing object, which is
// fault.NotFound. New does not connect.
//
// Requests use the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY configure, because some networks can reach the store
// only through a proxy. Downloads of sources never use it; see package fetch.
package blob
