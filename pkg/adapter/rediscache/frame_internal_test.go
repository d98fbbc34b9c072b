package rediscache

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
)

// Releases that run at the same time share the format of a frame, so these tests compare bytes.

func TestEncode(t *testing.T) {
	t.Parallel()
	frame, identity := encode(catalog.Document{Version: 42, ETag: `"42-x"`, Body: []byte("{}")}, "v1")
	if got, want := string(frame), "Vd00000000000000000042\x02v1\x06\"42-x\"{}"; got != want {
		t.Errorf("document: got %q, want %q", got, want)
	}
	if got, want := string(frame[:identity]), "Vd00000000000000000042\x02v1"; got != want {
		t.Errorf("identity: got %q, want %q", got, want)
	}
	frame, _ = encode(catalog.Document{Version: 0, Missing: true}, "v1")
	if got, want := string(frame), "Vm00000000000000000000\x02v1\x00"; got != want {
		t.Errorf("missing: got %q, want %q", got, want)
	}
	if got, want := string(tombstone(1<<63-1)), "Vt09223372036854775807"; got != want {
		t.Errorf("tombstone: got %q, want %q", got, want)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	t.Run("every_encoded_frame_is_read_back", testDecodeRoundTrip)
	t.Run("other_bytes_are_damaged", testDecodeDamaged)
}

func testDecodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		tag := rapid.StringN(1, -1, maxTextBytes).Draw(r, "tag")
		doc := catalog.Document{
			Version: rapid.Int64Min(0).Draw(r, "version"),
			ETag:    rapid.StringN(0, -1, maxTextBytes).Draw(r, "etag"),
			Body:    rapid.SliceOf(rapid.Byte()).Draw(r, "body"),
		}
		frame, _ := encode(doc, tag)
		got, result := decode(string(frame), frame, tag)
		if result != found || got.Version != doc.Version || got.ETag != doc.ETag || !bytes.Equal(got.Body, doc.Body) {
			r.Fatalf("got %v %+v, want %+v", result, got, doc)
		}
		if _, result := decode(string(frame), frame, tag+"x"); result != otherTag {
			r.Fatalf("under another tag: got %v, want otherTag", result)
		}
		cut := rapid.IntRange(0, frameHeadBytes+1+len(tag)+len(doc.ETag)).Draw(r, "cut")
		if _, result := decode(string(frame[:cut]), frame[:cut], tag); result != malformed {
			r.Fatalf("cut to %d bytes: got %v, want damaged", cut, result)
		}
	})
}

func testDecodeDamaged(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "V", "hello, world, this is not a frame", "Wd00000000000000000001\x01a\x00", "Vx00000000000000000001\x01a\x00",
		"Vd0000000000000000000x\x01a\x00", "Vt0000000000000000000:", "Vd09223372036854775808\x01a\x00",
		"Vd99999999999999999999\x01a\x00", "Vd-0000000000000000001\x01a\x00", "Vd00000000000000000001\x09a",
	} {
		if doc, result := decode(text, []byte(text), "a"); result != malformed || doc.Version != 0 || doc.Body != nil {
			t.Errorf("%q: got %v %+v, want damaged", text, result, doc)
		}
	}
}

// AllocsPerRun counts the allocations of all goroutines, so this test is not parallel.
//
//nolint:paralleltest // see above
func TestDecodeAllocations(t *testing.T) {
	frame, _ := encode(catalog.Document{Version: 7, ETag: `"7-x"`, Body: bytes.Repeat([]byte("x"), 1000)}, "v1")
	text := string(frame)
	if got := testing.AllocsPerRun(100, func() { decode(text, frame, "v1") }); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
	doc, _ := decode(text, frame, "v1")
	if _ = append(doc.Body, 'y'); cap(doc.Body) != len(doc.Body) {
		t.Error("the body has spare capacity: an append would write into the frame")
	}
}

func FuzzDecode(f *testing.F) {
	frame, _ := encode(catalog.Document{Version: 7, ETag: `"7-x"`, Body: []byte("{}")}, "v1")
	f.Add(frame)
	f.Add(tombstone(3))
	f.Add([]byte("Vm00000000000000000000\x02v1\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, result := decode(string(raw), raw, "v1")
		if result == found && doc.Version < 0 {
			t.Errorf("%q: got a negative version", raw)
		}
	})
}
