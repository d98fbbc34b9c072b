// Command controller publishes an ImagePipeline of a Kubernetes cluster to the pods of an installation, and reports in the
// resource's status what they have in force. It needs the API server, and reads Postgres. An installation whose pipeline is
// a file needs no controller; --help lists the settings.
package main
