// Package blobtest is the conformance suite of the object stores that package blob supports.
//
// It calls the store through blob.Bucket, as the worker does, and through plain HTTP, as a browser does. Each test uses a
// bucket of its own, which does not exist yet. A failure reports how the store differs from S3.
package blobtest
