package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Hash identifies how the pipeline renders images: the SHA-256 of the canonical JSON of renditions, accept and limits, as 64
// hexadecimal digits. It does not depend on comments, on the order of keys and of accept, or on whether a default is written
// in the document.
func (p Pipeline) Hash() string {
	s := p.Spec.canonical()
	sum := sha256.Sum256(mustJSON(struct {
		Renditions []Rendition `json:"renditions"`
		Accept     []Format    `json:"accept"`
		Limits     Limits      `json:"limits"`
	}{s.Renditions, s.Accept, s.Limits}))
	return hex.EncodeToString(sum[:])
}

// OutputHash identifies what is made of a source: the SHA-256 of the canonical JSON of renditions, as 64 hexadecimal digits.
// Unlike [Pipeline.Hash] it does not depend on which sources are accepted.
func (s Spec) OutputHash() string {
	sum := sha256.Sum256(mustJSON(s.Renditions))
	return hex.EncodeToString(sum[:])
}

// Document returns the pipeline as canonical JSON, which Parse parses into an equal pipeline but for spec.backfill.
func (p Pipeline) Document() []byte {
	p.Spec.Backfill = Backfill{}
	return mustJSON(p)
}

// DefaultOutput returns the rendition and format that compressed_product_images lists: the output marked as default, or else
// the first of the widest JPEG outputs. Both are empty if there is none, which Parse refuses.
func (s Spec) DefaultOutput() (rendition string, format Format) {
	if i, j := s.defaultOutput(); i >= 0 {
		return s.Renditions[i].Name, s.Renditions[i].Formats[j].Format
	}
	return "", ""
}

// defaultOutput returns the indexes of the default rendition and its format, or -1.
func (s Spec) defaultOutput() (rendition, format int) {
	rendition, format = -1, -1
	for i, r := range s.Renditions {
		for j, o := range r.Formats {
			if o.Default {
				return i, j
			}
			if o.Format == JPEG && (rendition < 0 || r.Width > s.Renditions[rendition].Width) {
				rendition, format = i, j
			}
		}
	}
	return rendition, format
}

// mustJSON encodes plain structs, which cannot fail: Parse bounds their floats.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("encode pipeline: " + err.Error())
	}
	return data
}
