// Package pipeline is the ImagePipeline: what is made of every picture, written down as a typed resource.
//
// It is read from a file now and from a Kubernetes custom resource later, by the same type. Reading is strict: an unknown
// field, a wrong type or a value out of range is an error that names its path, and all errors are told at once. Reading
// never returns half a pipeline: it is valid and complete, defaults filled in, or it is an error.
//
// [Pipeline.Hash] covers what changes a picture (renditions, accept, limits), so it names the exact work a request asked
// for; how a picture is fetched and how often it is tried again may change under a request without changing what it
// yields.
//
// Room: leaf. Doors: none. Outside: yaml.
package pipeline
