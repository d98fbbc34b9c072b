package rediscache

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
)

// The frame is what running releases share, so it is tested byte by byte, from inside.

func TestAFrameIsWrittenAsDocumented(t *testing.T) {
	t.Parallel()
	frame, name := encode(catalog.Document{Version: 42, ETag: `"42-x"`, Body: []byte("{}")}, "v1")
	if got, want := string(frame), "Vd00000000000000000042\x02v1\x06\"42-x\"{}"; got != want {
		t.Errorf("document: got %q, want %q", got, want)
	}
	if got, want := string(frame[:name]), "Vd00000000000000000042\x02v1"; got != want {
		t.Errorf("its name: got %q, want %q", got, want)
	}
	frame, _ = encode(catalog.Document{Version: 0, Missing: true}, "v1")
	if got, want := string(frame), "Vm00000000000000000000\x02v1\x00"; got != want {
		t.Errorf("missing: got %q, want %q", got, want)
	}
	if got, want := string(tombstone(1<<63-1)), "Vt09223372036854775807"; got != want {
		t.Errorf("tombstone: got %q, want %q", got, want)
	}
}

func TestEveryFrameIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		tag := rapid.StringN(1, -1, maxTextBytes).Draw(r, "tag")
		doc := catalog.Document{
			Version: rapid.Int64Min(0).Draw(r, "version"),
			ETag:    rapid.StringN(0, -1, maxTextBytes).Draw(r, "etag"),
			Body:    rapid.SliceOf(rapid.Byte()).Draw(r, "body"),
		}
		frame, _ := encode(doc, tag)
		got, what := decode(string(frame), frame, tag)
		if what != found || got.Version != doc.Version || got.ETag != doc.ETag || !bytes.Equal(got.Body, doc.Body) {
			r.Fatalf("got %v %+v, want %+v", what, got, doc)
		}
		if _, what := decode(string(frame), frame, tag+"x"); what != foreign {
			r.Fatalf("under another tag: got %v, want foreign", what)
		}
		cut := rapid.IntRange(0, frameHeadBytes+1+len(tag)+len(doc.ETag)).Draw(r, "cut")
		if _, what := decode(string(frame[:cut]), frame[:cut], tag); what != damaged {
			r.Fatalf("cut to %d bytes: got %v, want damaged", cut, what)
		}
	})
}

func TestWhatIsNoFrameIsDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "V", "hello, world, this is not a frame", "Wd00000000000000000001\x01a\x00", "Vx00000000000000000001\x01a\x00",
		"Vd0000000000000000000x\x01a\x00", "Vt0000000000000000000:", "Vd09223372036854775808\x01a\x00",
		"Vd99999999999999999999\x01a\x00", "Vd-0000000000000000001\x01a\x00", "Vd00000000000000000001\x09a",
	} {
		if doc, what := decode(text, []byte(text), "a"); what != damaged || doc.Version != 0 || doc.Body != nil {
			t.Errorf("%q: got %v %+v, want damaged", text, what, doc)
		}
	}
}

// Allocations can only be counted while nothing else runs.
//
//nolint:paralleltest // see above
func TestReadingAFrameCopiesNothing(t *testing.T) {
	frame, _ := encode(catalog.Document{Version: 7, ETag: `"7-x"`, Body: bytes.Repeat([]byte("x"), 1000)}, "v1")
	text := string(frame)
	if got := testing.AllocsPerRun(100, func() { decode(text, frame, "v1") }); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
	doc, _ := decode(text, frame, "v1")
	if _ = append(doc.Body, 'y'); cap(doc.Body) != len(doc.Body) {
		t.Error("a caller that appends to the body would write behind it")
	}
}

func FuzzDecode(f *testing.F) {
	frame, _ := encode(catalog.Document{Version: 7, ETag: `"7-x"`, Body: []byte("{}")}, "v1")
	f.Add(frame)
	f.Add(tombstone(3))
	f.Add([]byte("Vm00000000000000000000\x02v1\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, what := decode(string(raw), raw, "v1")
		if what == found && doc.Version < 0 {
			t.Errorf("%q: a version below zero", raw)
		}
	})
}
