package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// revisionDigits is how much of a digest names a revision: enough to tell an installation's revisions apart, and short
// enough to be read out.
const revisionDigits = 12

// Revision is a pipeline that no longer changes. Its names are made once, so asking for them costs nothing, and it may be
// used by all at the same time.
type Revision struct {
	pipeline Pipeline
	id, hash string
}

// NewRevision returns p as a revision. What becomes of p later does not change it.
func NewRevision(p Pipeline) *Revision {
	p.Spec = p.Spec.clone()
	sum := sha256.Sum256(mustJSON(p.Spec.canonical()))
	return &Revision{pipeline: p, id: hex.EncodeToString(sum[:])[:revisionDigits], hash: p.Hash()}
}

// ID names the whole specification, fetch and retry included, so that every change of it can be seen to arrive: 12
// hexadecimal digits of the SHA-256 of its canonical JSON. [Pipeline.Hash] names the part that changes pictures.
func (r *Revision) ID() string { return r.id }

// Hash is the pipeline's [Pipeline.Hash].
func (r *Revision) Hash() string { return r.hash }

// Name is the resource's name.
func (r *Revision) Name() string { return r.pipeline.Metadata.Name }

// Spec returns the specification. Its lists are shared: they are to be read only.
func (r *Revision) Spec() Spec { return r.pipeline.Spec }

// Document is the pipeline's [Pipeline.Document].
func (r *Revision) Document() []byte { return r.pipeline.Document() }

// same reports whether two revisions are the same resource.
func (r *Revision) same(other *Revision) bool { return r.id == other.id && r.Name() == other.Name() }

// canonical returns the specification with what has no order in order.
func (s Spec) canonical() Spec {
	s.Accept = slices.Clone(s.Accept)
	slices.Sort(s.Accept)
	return s
}

// clone returns a copy that shares nothing with the original.
func (s Spec) clone() Spec {
	s.Renditions = slices.Clone(s.Renditions)
	for i := range s.Renditions {
		outputs := slices.Clone(s.Renditions[i].Formats)
		for j, o := range outputs {
			if o.Target != nil {
				target := *o.Target
				outputs[j].Target = &target
			}
		}
		s.Renditions[i].Formats = outputs
	}
	s.Accept = slices.Clone(s.Accept)
	s.Fetch.AllowCIDRs = slices.Clone(s.Fetch.AllowCIDRs)
	s.Fetch.AllowPorts = slices.Clone(s.Fetch.AllowPorts)
	return s
}
