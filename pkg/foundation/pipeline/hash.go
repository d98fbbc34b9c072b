package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Hash names what the pipeline makes of a picture: 64 hexadecimal digits, the SHA-256 of the canonical JSON of renditions,
// accept and limits. Comments, the order of keys and of accept, and defaults written out or left out do not change it.
func (p Pipeline) Hash() string {
	s := p.Spec.canonical()
	sum := sha256.Sum256(mustJSON(struct {
		Renditions []Rendition `json:"renditions"`
		Accept     []Format    `json:"accept"`
		Limits     Limits      `json:"limits"`
	}{s.Renditions, s.Accept, s.Limits}))
	return hex.EncodeToString(sum[:])
}

// Document returns the whole pipeline as canonical JSON. Parse makes the same pipeline of it.
func (p Pipeline) Document() []byte { return mustJSON(p) }

// DefaultOutput returns the rendition and format whose key stands in compressed_product_images: the one marked default,
// or else the widest JPEG, the first of equals. Both are empty when there is neither, which Parse does not let through.
func (s Spec) DefaultOutput() (rendition string, format Format) {
	if i, j := s.defaultOutput(); i >= 0 {
		return s.Renditions[i].Name, s.Renditions[i].Formats[j].Format
	}
	return "", ""
}

// defaultOutput returns the places of the default rendition and its format, or -1.
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

// mustJSON encodes what cannot fail: plain structs, whose only float Parse holds between 1 and 100.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("encode pipeline: " + err.Error())
	}
	return data
}
