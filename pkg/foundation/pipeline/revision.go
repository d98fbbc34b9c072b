package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// revisionDigits is the length of a revision's ID in hexadecimal digits: enough to distinguish the revisions of one
// installation, and short enough to compare by eye.
const revisionDigits = 12

// Revision is an immutable pipeline under the bounds of an installation. Its ID and hash are computed once. It is safe for
// concurrent use.
type Revision struct {
	pipeline Pipeline
	id, hash string
}

// NewRevision returns a revision of p under DefaultBounds.
func NewRevision(p Pipeline) *Revision { return DefaultBounds().NewRevision(p) }

// NewRevision returns a revision with a copy of p, which it takes through JSON because that copies lists and targets too.
func (b Bounds) NewRevision(p Pipeline) *Revision {
	var own Pipeline
	if err := json.Unmarshal(p.Document(), &own); err != nil {
		panic("copy pipeline: " + err.Error())
	}
	sum := sha256.Sum256(mustJSON(struct {
		Spec   Spec
		Bounds Bounds
	}{p.Spec.canonical(), b.canonical()}))
	return &Revision{pipeline: own, id: hex.EncodeToString(sum[:])[:revisionDigits], hash: p.Hash()}
}

// ID identifies the whole specification, with fetch and retry, and the bounds, so that operators can follow the roll-out of
// every change. It is the first 12 hexadecimal digits of the SHA-256 of the canonical JSON. [Pipeline.Hash] identifies only
// what changes the rendered images.
func (r *Revision) ID() string { return r.id }

// Hash returns the pipeline's [Pipeline.Hash].
func (r *Revision) Hash() string { return r.hash }

// Name returns the resource's name.
func (r *Revision) Name() string { return r.pipeline.Metadata.Name }

// Spec returns the specification. The caller must not modify its lists, which are shared.
func (r *Revision) Spec() Spec { return r.pipeline.Spec }

// Document returns the pipeline's [Pipeline.Document].
func (r *Revision) Document() []byte { return r.pipeline.Document() }

// same reports whether two revisions have the same specification and name.
func (r *Revision) same(other *Revision) bool { return r.id == other.id && r.Name() == other.Name() }

// canonical returns the specification with the list accept, whose order has no meaning, sorted, and without what is no part
// of a revision.
func (s Spec) canonical() Spec {
	s.Backfill = Backfill{}
	s.Accept = slices.Clone(s.Accept)
	slices.Sort(s.Accept)
	return s
}
