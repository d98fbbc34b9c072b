// Package pipeline is the ImagePipeline: what is made of every picture, written down as a typed resource.
//
// It is read from a file now and from a Kubernetes custom resource later, by the same type. Reading is strict: an unknown
// or repeated field, a wrong type or a value out of range is an error that names its path, and all errors are told at once.
// Reading never returns half a pipeline: it is valid and complete, defaults filled in and the default rendition marked, or
// it is an error. So a pipeline, its [Pipeline.Document] and what [Parse] makes of that are always the same.
//
// [Pipeline.Hash] covers what changes a picture (renditions, accept, limits), so it names the exact work a request asked
// for; how a picture is fetched and how often it is tried again may change under a request without changing what it
// yields. It is taken after the defaults are filled in: to write a default down changes nothing, to change a default of
// this package changes every hash that relied on it.
//
// Room: leaf. Doors: fault. Outside: yaml.
package pipeline
