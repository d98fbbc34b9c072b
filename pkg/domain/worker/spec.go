package worker

import (
	"context"
	"fmt"
	"sync"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// maxSpecs is how many specifications are cached, beside the one in force.
const maxSpecs = 64

// specCache finds the specification with the hash that a job names.
type specCache struct {
	store   catalog.Pipelines
	current func() *pipeline.Revision
	mu      sync.Mutex
	known   map[string]pipeline.Spec
}

// get returns the specification. If the hash is unknown, it returns a *media.Failure with the code pipeline_unknown. Any
// other error is that of the store.
func (s *specCache) get(ctx context.Context, hash string) (pipeline.Spec, error) {
	if current := s.current(); current.Hash() == hash {
		return current.Spec(), nil
	}
	s.mu.Lock()
	spec, ok := s.known[hash]
	s.mu.Unlock()
	if ok {
		return spec, nil
	}
	document, err := s.store.Pipeline(ctx, hash)
	if fault.Is(err, fault.NotFound) {
		return pipeline.Spec{}, media.Fail(media.PipelineUnknown, "the requested pipeline is not stored", err)
	} else if err != nil {
		return pipeline.Spec{}, err
	}
	p, err := pipeline.ParseStored(document, hash)
	if err != nil {
		return pipeline.Spec{}, media.Fail(media.PipelineUnknown, "the requested pipeline cannot be read",
			fmt.Errorf("pipeline %s: %w", hash, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxSpecs {
		clear(s.known)
	}
	s.known[hash] = p.Spec
	return p.Spec, nil
}
