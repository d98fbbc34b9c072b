// Command controller publishes an ImagePipeline of a Kubernetes cluster to the pods of an installation, and reports in the
// resource's status what they have in force. It also drives the backfills of the cluster. It needs the API server, and
// Postgres for all but publishing. An installation whose pipeline is a file needs no controller; --help lists the settings.
package main
