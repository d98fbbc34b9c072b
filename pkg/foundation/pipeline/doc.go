// Package pipeline is the ImagePipeline: what is made of every picture, written down as a typed resource.
//
// It is read from a file now and from a Kubernetes custom resource later, by the same types: [Spec] has the JSON form that
// the resource's spec will have, and is read back by encoding/json as well as by [Parse]. Reading is strict: an unknown or
// repeated field, a wrong type or a value out of range is an error that names its path, and all errors are told at once.
// Reading never returns half a pipeline: it is valid and complete, defaults filled in and the default rendition marked, or
// it is an error. So a pipeline, its [Pipeline.Document] and what [Parse] makes of that are always the same.
//
// [Pipeline.Hash] covers what changes a picture (renditions, accept, limits), so it names the exact work a request asked
// for; how a picture is fetched and how often it is tried again may change under a request without changing what it
// yields. It is taken after the defaults are filled in: to write a default down changes nothing, to change a default of
// this package changes every hash that relied on it.
//
// A [Watcher] keeps a program's pipeline equal to its file. What it gives out is a [Revision], which never changes: whoever
// holds one keeps it, whoever asks again gets the one in force. A file that is not valid changes nothing but the [State],
// which says so; a watch that cannot be had, or misses something, is made good by a poll.
package pipeline
