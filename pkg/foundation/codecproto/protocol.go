package codecproto

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// version is in the first frame of a child. Parent and child come from one build; a mix-up of builds fails at the start.
const version = 4

// The types of frames.
const (
	frameHello   byte = 'H' // child: it has started
	frameRequest byte = 'Q' // parent: a specification; a source follows
	frameSource  byte = 'S' // parent: the image; the files of a comparison follow
	frameFile    byte = 'C' // parent: one file of a comparison
	frameAnswer  byte = 'A' // child: what was rendered; its bodies follow
	frameBody    byte = 'B' // child: one encoded rendition
	frameScores  byte = 'R' // child: the scores of a comparison
	frameFailure byte = 'F' // child: why nothing was rendered or compared
)

// limits has the maximum length of a payload by type, in bytes. The limit of a source is the maximum of a pipeline's
// maxBytes.
var limits = map[byte]uint32{
	frameHello: 4 << 10, frameRequest: 1 << 20, frameSource: 256 << 20, frameFile: 256 << 20,
	frameAnswer: 1 << 20, frameBody: 256 << 20, frameScores: 64 << 10, frameFailure: 64 << 10,
}

const (
	maxBodies = 32 * 4    // renditions x formats of a pipeline; also files of a comparison
	maxAnswer = 512 << 20 // bytes of all bodies of one answer, and of all files of a comparison
	firstRead = 1 << 20   // bytes allocated before any byte of the payload has arrived
	frameHead = 5         // length and type
)

// hello is the first frame of a child.
type hello struct {
	Protocol int `json:"protocol"`
}

// request is a request for the renditions of one image or, if it has files, for their scores.
type request struct {
	Seq     int                `json:"seq"` // repeated in the answer: an answer to another request is detected
	Spec    pipeline.Spec      `json:"spec"`
	Compare []media.Comparison `json:"compare,omitempty"`
}

// scores are the result of a comparison, in the order of the files.
type scores struct {
	Seq    int           `json:"seq"`
	Scores []media.Score `json:"scores"`
}

// answer is what was rendered. Equal outputs share a body.
type answer struct {
	Seq int `json:"seq"`
	media.Rendered
	BodyOf []int `json:"body_of"` // for each of Files the index of its body, from 0
	Bodies int   `json:"bodies"`
}

// failure is why nothing was rendered.
type failure struct {
	Seq    int        `json:"seq"`
	Code   media.Code `json:"code"`
	Detail string     `json:"detail"`
	Cause  string     `json:"cause"`
}

// writeFrame writes one frame.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if uint64(len(payload)) > uint64(limits[kind]) {
		return fmt.Errorf("frame %q of %d bytes is over its limit of %d", kind, len(payload), limits[kind])
	}
	head := binary.BigEndian.AppendUint32(make([]byte, 0, frameHead), uint32(len(payload)))
	if _, err := w.Write(append(head, kind)); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func writeJSON(w io.Writer, kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, payload)
}

// readFrame reads one frame of one of the given types. It returns io.EOF if the stream ended between two frames, and
// io.ErrUnexpectedEOF if it ended within one.
func readFrame(r io.Reader, kinds ...byte) (byte, []byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n, kind := binary.BigEndian.Uint32(head[:]), head[4]
	if !slices.Contains(kinds, kind) {
		return 0, nil, fmt.Errorf("frame of type %q, want one of %q", kind, kinds)
	}
	if n > limits[kind] {
		return 0, nil, fmt.Errorf("frame %q of %d bytes is over its limit of %d", kind, n, limits[kind])
	}
	payload, err := readPayload(r, int(n))
	return kind, payload, err
}

// readPayload reads n bytes. Above firstRead the buffer doubles as bytes arrive, so that a wrong length alone allocates
// little.
func readPayload(r io.Reader, n int) ([]byte, error) {
	payload := make([]byte, min(n, firstRead))
	for read := 0; ; {
		m, err := io.ReadFull(r, payload[read:])
		if err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		if read += m; read == n {
			return payload, nil
		}
		grown := make([]byte, min(n, 2*read))
		copy(grown, payload)
		payload = grown
	}
}

// readJSON reads a frame of one type into v.
func readJSON(r io.Reader, kind byte, v any) error {
	_, payload, err := readFrame(r, kind)
	if err != nil {
		return err
	}
	return json.Unmarshal(payload, v)
}

// ReadHello waits for the first frame of a child. It is an error if the child speaks another version of the protocol.
func ReadHello(r io.Reader) error {
	var h hello
	if err := readJSON(r, frameHello, &h); err != nil {
		return err
	}
	if h.Protocol != version {
		return fmt.Errorf("codec speaks protocol %d, not %d", h.Protocol, version)
	}
	return nil
}

// WriteRequest sends an image to a child. It is an error if the source or the specification is over its limit, or if writing
// fails.
func WriteRequest(w io.Writer, seq int, source []byte, spec pipeline.Spec) error {
	if err := writeJSON(w, frameRequest, request{Seq: seq, Spec: spec}); err != nil {
		return err
	}
	return writeFrame(w, frameSource, source)
}

// WriteComparison sends an image, and files that were made from it, to a child. The limits of a source are those of spec. It
// is an error if there is no file, if anything is over its limit, or if writing fails.
func WriteComparison(w io.Writer, seq int, source []byte, spec pipeline.Spec, files []media.Comparison) error {
	if len(files) == 0 || len(files) > maxBodies {
		return fmt.Errorf("comparison of %d files, want 1 to %d", len(files), maxBodies)
	}
	if err := writeJSON(w, frameRequest, request{Seq: seq, Spec: spec, Compare: files}); err != nil {
		return err
	}
	if err := writeFrame(w, frameSource, source); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFrame(w, frameFile, f.Body); err != nil {
			return err
		}
	}
	return nil
}

// readRequest receives an image, and the files of a comparison, from the parent.
func readRequest(r io.Reader) (request, []byte, error) {
	var q request
	if err := readJSON(r, frameRequest, &q); err != nil {
		return q, nil, err
	}
	if len(q.Compare) > maxBodies {
		return q, nil, fmt.Errorf("comparison of %d files is over its limit of %d", len(q.Compare), maxBodies)
	}
	_, source, err := readFrame(r, frameSource)
	total := 0
	for i := range q.Compare {
		if err != nil {
			break
		}
		_, q.Compare[i].Body, err = readFrame(r, frameFile)
		if total += len(q.Compare[i].Body); total > maxAnswer {
			return q, nil, fmt.Errorf("comparison is over its limit of %d bytes", maxAnswer)
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return q, source, err
}

// ReadScores receives the answer to the comparison seq of so many files. Errors are as those of ReadAnswer.
func ReadScores(r io.Reader, seq, files int) ([]media.Score, error) {
	kind, payload, err := readFrame(r, frameScores, frameFailure)
	if err != nil {
		return nil, err
	}
	if kind == frameFailure {
		return nil, readFailure(payload, seq)
	}
	var s scores
	if err := json.Unmarshal(payload, &s); err != nil {
		return nil, err
	}
	if s.Seq != seq || len(s.Scores) != files {
		return nil, fmt.Errorf("answer to request %d, not %d, with %d scores of %d", s.Seq, seq, len(s.Scores), files)
	}
	for _, score := range s.Scores {
		if score.Value > maxScore {
			return nil, fmt.Errorf("answer with a score of %g", score.Value)
		}
	}
	return s.Scores, nil
}

// maxScore is the score of an identical image, with an allowance for rounding.
const maxScore = 100.01

// writeAnswer sends what was rendered to the parent. A body that several outputs share is sent once.
func writeAnswer(w io.Writer, seq int, rendered media.Rendered) error {
	a := answer{Seq: seq, Rendered: rendered}
	var bodies [][]byte
	sent := map[*byte]int{}
	for _, o := range rendered.Files {
		if len(o.Body) == 0 {
			return fmt.Errorf("output %s as %s is empty", o.Name, o.Format)
		}
		at, ok := sent[&o.Body[0]]
		if !ok {
			at = len(bodies)
			bodies, sent[&o.Body[0]] = append(bodies, o.Body), at
		}
		a.BodyOf = append(a.BodyOf, at)
	}
	a.Bodies = len(bodies)
	if err := writeJSON(w, frameAnswer, a); err != nil {
		return err
	}
	for _, body := range bodies {
		if err := writeFrame(w, frameBody, body); err != nil {
			return err
		}
	}
	return nil
}

// writeFailure reports to the parent why nothing was rendered.
func writeFailure(w io.Writer, seq int, why *media.Failure) error {
	const maxText = 4 << 10 // bytes of each text, far below the frame's limit
	f := failure{Seq: seq, Code: why.Code, Detail: why.Detail[:min(len(why.Detail), maxText)]}
	if why.Cause != nil {
		text := why.Cause.Error()
		f.Cause = text[:min(len(text), maxText)]
	}
	return writeJSON(w, frameFailure, f)
}

// ReadAnswer receives the answer to the request seq. A failure that the child reports is a *media.Failure; after any other
// error the child must not be used again.
func ReadAnswer(r io.Reader, seq int, spec pipeline.Spec) (media.Rendered, error) {
	kind, payload, err := readFrame(r, frameAnswer, frameFailure)
	if err != nil {
		return media.Rendered{}, err
	}
	if kind == frameFailure {
		return media.Rendered{}, readFailure(payload, seq)
	}
	var a answer
	if err := json.Unmarshal(payload, &a); err != nil {
		return media.Rendered{}, err
	}
	if a.Seq != seq {
		return media.Rendered{}, fmt.Errorf("answer to request %d, not %d", a.Seq, seq)
	}
	if a.Bodies < 0 || a.Bodies > maxBodies || len(a.BodyOf) != len(a.Files) {
		return media.Rendered{}, fmt.Errorf("answer with %d bodies, %d of %d files", a.Bodies, len(a.BodyOf), len(a.Files))
	}
	bodies := make([][]byte, a.Bodies)
	total := 0
	for i := range bodies {
		if _, bodies[i], err = readFrame(r, frameBody); err != nil {
			return media.Rendered{}, err
		}
		if total += len(bodies[i]); total > maxAnswer {
			return media.Rendered{}, fmt.Errorf("answer is over its limit of %d bytes", maxAnswer)
		}
	}
	for i, at := range a.BodyOf {
		if at < 0 || at >= len(bodies) {
			return media.Rendered{}, fmt.Errorf("answer with body %d of %d", at, len(bodies))
		}
		a.Files[i].Body = bodies[at]
	}
	return a.Rendered, checkRendered(a.Rendered, spec)
}

func readFailure(payload []byte, seq int) error {
	var f failure
	if err := json.Unmarshal(payload, &f); err != nil {
		return err
	}
	if f.Seq != seq || f.Code == "" {
		return fmt.Errorf("failure of request %d, not %d, with code %q", f.Seq, seq, f.Code)
	}
	why := media.Fail(f.Code, f.Detail, nil)
	if f.Cause != "" {
		why.Cause = fmt.Errorf("codec: %s", f.Cause)
	}
	return why
}

// checkRendered returns an error if rendered is not what spec requests: each output once, in order, with a body or dropped
// for a known reason. Neither the default output nor a whole rendition may be dropped.
func checkRendered(rendered media.Rendered, spec pipeline.Spec) error {
	name, format := spec.DefaultOutput()
	files, dropped := rendered.Files, rendered.Dropped
	for _, r := range spec.Renditions {
		before := len(files)
		for _, o := range r.Formats {
			marked := r.Name == name && o.Format == format
			if len(dropped) > 0 && dropped[0].Name == r.Name && dropped[0].Format == o.Format {
				if marked || !slices.Contains(media.Reasons(), dropped[0].Reason) {
					return fmt.Errorf("answer that drops %s as %s for the reason %q", r.Name, o.Format, dropped[0].Reason)
				}
				dropped = dropped[1:]
				continue
			}
			if len(files) == 0 {
				return fmt.Errorf("answer without %s as %s", r.Name, o.Format)
			}
			if err := checkFile(files[0], r.Name, o.Format, marked); err != nil {
				return err
			}
			files = files[1:]
		}
		if len(files) == before {
			return fmt.Errorf("answer without %s", r.Name)
		}
	}
	if len(files) > 0 || len(dropped) > 0 || rendered.Width < 1 || rendered.Height < 1 {
		return fmt.Errorf("answer with %d outputs and %d dropped of a source of %d x %d",
			len(rendered.Files), len(rendered.Dropped), rendered.Width, rendered.Height)
	}
	return nil
}

// checkFile returns an error if got is not the output of a rendition in a format.
func checkFile(got media.EncodedFile, name string, format pipeline.Format, marked bool) error {
	if got.Name != name || got.Format != format {
		return fmt.Errorf("answer with %s as %s, want %s as %s", got.Name, got.Format, name, format)
	}
	size := len(got.Body)
	got.Body = nil // for the text
	if size == 0 || got.Width < 1 || got.Height < 1 || got.Lowered < 0 || got.Lowered > 100 || got.Default != marked {
		return fmt.Errorf("answer with invalid output %s as %s: %+v, %d bytes", name, format, got, size)
	}
	return nil
}
