// Package controller publishes an ImagePipeline of the cluster to the pods of an installation, and reports in the resource's
// status what they have in force. It also drives the backfills that follow from a change.
//
// [ImagePipeline] embeds [pipeline.Spec], the type of the pipeline's file, so controller-gen derives the
// CustomResourceDefinition from that one type. The controller never decodes a spec into it: it passes the object as the API
// server returns it to [pipeline.Bounds.Parse], which distinguishes a missing field from a zero, as it does for a file.
//
// A [Controller] follows the one pipeline that its configuration names. It writes a valid one into a ConfigMap, by
// server-side apply; the pods mount it and reload it as they do any pipeline's file. An invalid one leaves the last in the
// ConfigMap. So does a deleted one, because the pods that start later need it. Publishing depends on the API server only.
// What is in force follows from the heartbeats in Postgres, which are only read; while they cannot be read, nothing that was
// in force is reported as lost.
//
// An [ImageBackfill] is driven by Postgres: the controller proposes the backfill for a change of the pipeline as a row,
// makes the resource for it, carries out what the resource asks for, and reports the row in its status. The api processes
// make the images, also while no controller runs.
//
// Several replicas may run: one of them is the leader, and only the leader writes.
//
// +groupName=vitrine.io
// +versionName=v1alpha1
package controller
