// Package blob keeps pictures in one bucket of an S3-compatible store (AWS, MinIO, and what speaks like them).
//
// An object's key is never used for other bytes, so every object is stored with a Content-Type and with
// "Cache-Control: public, max-age=31536000, immutable": browsers and CDNs may keep it for good. Storing the same object
// again changes nothing, deleting what is not there is no error, and making the bucket may be raced and repeated.
//
// Only a whole prefix can be deleted, and only one that ends in a slash: "a/1/" can never take "a/10/x" with it. In a
// bucket with versioning a deletion leaves versions behind; a lifecycle rule has to remove them.
//
// One object is no picture: the mark that says which installation's bucket this is, written once and never changed. Who
// lists the bucket to tidy it up compares the mark first.
//
// When it fails: the SDK tries again on its own, at most Config.MaxAttempts times with pauses under a second, each try
// bounded by Config.AttemptTimeout; after that the error is fault.Unavailable, whatever the store's reason. fault.NotFound
// is for an object that is not there. New needs no store to be up.
//
// HTTP goes through the proxy of HTTPS_PROXY, HTTP_PROXY and NO_PROXY if they are set, because in some companies the store
// is only reached so. (Downloads of pictures never do: see fetch.)
package blob
