// Package blobtest is the conformance suite of the object stores in which Vitrine keeps images.
//
// It drives the store through blob.Bucket, as the worker does, and through plain HTTP, as a browser does. Each test asks for
// the configuration of a bucket of its own, which does not exist yet.
//
// A failure names what the store does otherwise than S3.
package blobtest
