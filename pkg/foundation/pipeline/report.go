package pipeline

import "time"

// Report is what one running program says of its pipeline, for others to read.
type Report struct {
	Role     string        // api or worker
	Instance string        // which of them: the pod's name, or host and process
	Revision string        // in force, a Revision's ID
	Error    string        // why the file's present content is not in force; empty when it is
	InForce  time.Duration // how long the revision has been in force
	Age      time.Duration // how long ago this was said
}
