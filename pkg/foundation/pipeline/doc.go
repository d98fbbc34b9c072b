// Package pipeline defines the ImagePipeline, a typed resource that describes how every image is processed.
//
// A pipeline is read from a file. [Spec] has the JSON form of a Kubernetes custom resource's spec, and encoding/json decodes
// it as well as [Parse] does. Parse is strict: an unknown or repeated field, a wrong type or a value out of range is an
// error that names its path, and all errors are reported at once. Parse returns either an error or a valid, complete
// pipeline with all defaults filled in and the default output marked. So a pipeline equals the result of parsing its
// [Pipeline.Document].
//
// [Pipeline.Hash] covers what changes the rendered images (renditions, accept, limits), so it identifies the work of a job.
// The settings of fetching and retries are not part of it: they may change while a job waits. The hash is computed after the
// defaults are filled in: writing a default into the document does not change it, while a changed default of this package
// changes every hash that used it.
//
// A [Watcher] keeps a program's pipeline equal to its file. It returns the pipeline as a [Revision], which is immutable. An
// invalid file leaves the current revision in force and sets the error of the [State]. Where the directory cannot be
// watched, or an event is lost, polling finds the change.
package pipeline
