package pipeline

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"

	"vitrine.io/pkg/foundation/fault"
)

// ExceedsBounds is the code of the error of [Bounds.Parse] for a valid pipeline beyond the bounds.
const ExceedsBounds = "exceeds_bounds"

// MaxDocument is the maximum size of a document, in bytes. It is the limit of Kubernetes for one object.
const MaxDocument = 1 << 20

// Parse parses an ImagePipeline in YAML or JSON, from a file or as the API server returns it: it ignores the object's
// status, and its metadata but for the name. The error is a fault.Invalid whose Fields are all errors, each with a path
// such as "spec.renditions[2].formats[0].quality".
func Parse(data []byte) (Pipeline, error) {
	if len(data) > MaxDocument {
		return Pipeline{}, fault.New(fault.Invalid, "invalid_pipeline", "the document is larger than 1 MiB")
	}
	tree, err := document(data)
	if err != nil {
		return Pipeline{}, fault.Wrap(err, fault.Invalid, "invalid_pipeline", "the document is not one YAML or JSON mapping")
	}
	p := Pipeline{Spec: defaultSpec()}
	r := &reader{seen: map[string]bool{}, broken: map[string]bool{}}
	r.object("", tree, reflect.ValueOf(&p).Elem())
	r.complete(&p)
	r.validate(&p)
	if len(r.wrong) > 0 {
		invalid := fault.New(fault.Invalid, "invalid_pipeline", "the image pipeline is not valid")
		invalid.Fields = r.wrong
		return Pipeline{}, invalid
	}
	return p, nil
}

// ParseStored decodes the [Pipeline.Document] of an earlier request, which an older or a newer version may have written: it
// ignores unknown fields. The error is a fault.Invalid if the document is not that of the hash.
func ParseStored(document []byte, hash string) (Pipeline, error) {
	var p Pipeline
	if err := json.Unmarshal(document, &p); err != nil {
		return Pipeline{}, fault.Wrap(err, fault.Invalid, "invalid_pipeline", "the document is not JSON")
	}
	if p.Hash() != hash {
		return Pipeline{}, fault.New(fault.Invalid, "invalid_pipeline", "the document has another hash")
	}
	return p, nil
}

// readFile reads at most MaxDocument+1 bytes, which Parse refuses.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pipeline: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read pipeline: %w", err)
	}
	return data, nil
}

func (c Config) parseFile(data []byte) (Pipeline, error) {
	p, err := c.Bounds.Parse(data)
	if err != nil {
		return Pipeline{}, fmt.Errorf("parse %s: %w", c.File, err)
	}
	return p, nil
}

// complete fills in the defaults of list elements. Parse sets all other defaults before it decodes the document.
func (r *reader) complete(p *Pipeline) {
	for i := range p.Spec.Renditions {
		rendition := &p.Spec.Renditions[i]
		path := fmt.Sprintf("spec.renditions[%d]", i)
		if !r.seen[path+".fit"] {
			rendition.Fit = Inside
		}
		if !r.seen[path+".background"] {
			rendition.Background = white
		}
		for j := range rendition.Formats {
			output := &rendition.Formats[j]
			if output.Target == nil && !r.seen[fmt.Sprintf("%s.formats[%d].quality", path, j)] {
				output.Quality = DefaultQuality(output.Format)
			}
		}
	}
	if i, j := p.Spec.defaultOutput(); i >= 0 {
		p.Spec.Renditions[i].Formats[j].Default = true
	}
}
