package pipeline

import "time"

// Report is the heartbeat of one running program: the pipeline that it uses.
type Report struct {
	Role     string        // api or worker
	Instance string        // the pod's name, or host and process id
	Revision string        // the ID of the Revision in force
	Hash     string        // its hash; empty in the report of an earlier release
	Error    string        // why the file's current content is not in force; empty if it is
	InForce  time.Duration // how long the revision has been in force
	Age      time.Duration // time since the heartbeat
}
