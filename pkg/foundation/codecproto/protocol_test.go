package codecproto_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestFrame(t *testing.T) {
	t.Parallel()
	t.Run("round_trip", testFrameRoundTrip)
	t.Run("over_limit", testFrameOverLimit)
}

func testFrameRoundTrip(t *testing.T) {
	t.Parallel()
	const first = codecproto.FirstRead
	for _, n := range []int{0, 1, first - 1, first, first + 1, 5*first + 3} {
		payload := bytes.Repeat([]byte("payload"), n/7+1)[:n]
		var wire bytes.Buffer
		if err := codecproto.WriteFrame(&wire, 'S', payload); err != nil {
			t.Fatal(err)
		}
		whole := bytes.Clone(wire.Bytes())
		kind, got, err := codecproto.ReadFrame(&wire, 'Q', 'S')
		if err != nil || kind != 'S' || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: got type %q, %d bytes, %v", n, kind, len(got), err)
		}
		if _, _, err := codecproto.ReadFrame(&wire, 'S'); !errors.Is(err, io.EOF) {
			t.Errorf("after the last frame: %v, want io.EOF", err)
		}
		for _, cut := range []int{1, 4, 5, len(whole) - 1} {
			if cut >= len(whole) {
				continue
			}
			if _, _, err := codecproto.ReadFrame(bytes.NewReader(whole[:cut]), 'S'); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d of %d bytes: %v, want io.ErrUnexpectedEOF", cut, len(whole), err)
			}
		}
	}
}

func testFrameOverLimit(t *testing.T) {
	t.Parallel()
	if err := codecproto.WriteFrame(io.Discard, 'H', make([]byte, 5<<10)); err == nil {
		t.Error("a long hello was written")
	}
	if _, _, err := codecproto.ReadFrame(strings.NewReader("\x00\x00\x14\x00H"+strings.Repeat(" ", 5<<10)), 'H'); err == nil ||
		!strings.Contains(err.Error(), "limit") {
		t.Errorf("a long hello was read: %v", err)
	}
}

// FuzzReadFrame checks that no input makes the reader panic, allocate for a length alone, or return what was not sent.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02A{}"))
	f.Add([]byte("\xff\xff\xff\xffA"))
	f.Add([]byte("\x00\x00\x00\x00S"))
	f.Add([]byte("\x0f\xff\xff\xffBxx"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		kind, payload, err := codecproto.ReadFrame(r, 'A', 'B', 'F', 'H', 'Q', 'S')
		if err != nil {
			return
		}
		var written bytes.Buffer
		if err := codecproto.WriteFrame(&written, kind, payload); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(wire, written.Bytes()) || written.Len() != len(wire)-r.Len() {
			t.Errorf("read %q of %q", written.Bytes(), wire)
		}
	})
}

// FuzzReadAnswer checks that an answer is accepted only if it contains or drops every requested output.
func FuzzReadAnswer(f *testing.F) {
	spec := testSpec()
	var good bytes.Buffer
	if err := codecproto.WriteAnswer(&good, 1, testRendered(spec)); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	less := testRendered(spec)
	drop(&less, "thumb", pipeline.WebP, media.LargerThanSource)
	var dropped bytes.Buffer
	if err := codecproto.WriteAnswer(&dropped, 1, less); err != nil {
		f.Fatal(err)
	}
	f.Add(dropped.Bytes())
	f.Add([]byte("\x00\x00\x00\x1cF{\"seq\":1,\"code\":\"corrupt\"}"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		rendered, err := codecproto.ReadAnswer(bytes.NewReader(wire), 1, spec)
		if err != nil {
			return
		}
		last := rendered.Files[len(rendered.Files)-1]
		if len(rendered.Files)+len(rendered.Dropped) != 4 || rendered.Width < 1 || last.Name != "card" || !last.Default {
			t.Errorf("accepted %+v", rendered)
		}
	})
}

func testAnswerRoundTrip(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	rendered := testRendered(spec)
	rendered.Animated = true
	var wire bytes.Buffer
	if err := codecproto.WriteAnswer(&wire, 5, rendered); err != nil {
		t.Fatal(err)
	}
	if got, err := codecproto.ReadAnswer(&wire, 5, spec); err != nil || !reflect.DeepEqual(got, rendered) {
		t.Errorf("got %+v and %v, want %+v", got, err, rendered)
	}
}

func testAnswerSharedBodyIsSentOnce(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	rendered := testRendered(spec)
	shared := bytes.Repeat([]byte("x"), 10000)
	for i := range rendered.Files {
		rendered.Files[i].Body = shared
	}
	var wire bytes.Buffer
	if err := codecproto.WriteAnswer(&wire, 5, rendered); err != nil {
		t.Fatal(err)
	}
	if wire.Len() > 12000 {
		t.Errorf("four equal outputs take %d bytes, want one body of 10000", wire.Len())
	}
	got, err := codecproto.ReadAnswer(&wire, 5, spec)
	if err != nil || !bytes.Equal(got.Files[3].Body, shared) || &got.Files[0].Body[0] != &got.Files[3].Body[0] {
		t.Errorf("got %d outputs, %v; want one body shared", len(got.Files), err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	t.Run("input_ends", testServeInputEnds)
	t.Run("context_ends", testServeContextEnds)
	t.Run("several_requests", testServeSeveralRequests)
}

func testServeInputEnds(t *testing.T) {
	t.Parallel()
	never := func([]byte, pipeline.Spec) (media.Rendered, error) { panic("no image was sent") }
	if err := codecproto.Serve(t.Context(), strings.NewReader(""), io.Discard, never, nil); err != nil {
		t.Errorf("no input: %v", err)
	}
	for name, in := range map[string]string{
		"half a frame":             "\x00\x00",
		"an answer":                "\x00\x00\x00\x02A{}",
		"no JSON":                  "\x00\x00\x00\x02Q}{",
		"a request without source": "\x00\x00\x00\x02Q{}",
	} {
		if err := codecproto.Serve(t.Context(), strings.NewReader(in), io.Discard, never, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	r, w := io.Pipe()
	_ = r.Close()
	if err := codecproto.Serve(t.Context(), strings.NewReader(""), w, never, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the reader is closed: %v, want io.ErrClosedPipe", err)
	}
}

func testServeContextEnds(t *testing.T) {
	t.Parallel()
	in, held := io.Pipe()
	defer held.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- codecproto.Serve(ctx, in, io.Discard, nil, nil) }()
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func testAnswerLongFailureTextsAreCut(t *testing.T) {
	t.Parallel()
	var wire bytes.Buffer
	long := strings.Repeat("x", 1<<20)
	if err := codecproto.WriteFailure(&wire, 1, media.Fail(media.Corrupt, long, errors.New(long))); err != nil {
		t.Fatal(err)
	}
	_, err := codecproto.ReadAnswer(&wire, 1, testSpec())
	if got := media.FailureOf(err); got == nil || got.Code != media.Corrupt || len(got.Detail) != 4<<10 {
		t.Errorf("got %v", err)
	}
}

func testServeSeveralRequests(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	var in, out bytes.Buffer
	for i, source := range []string{"ok", "corrupt", "confused", "ok"} {
		if err := codecproto.WriteRequest(&in, i, []byte(source), spec); err != nil {
			t.Fatal(err)
		}
	}
	if err := codecproto.Serve(t.Context(), &in, &out, testRender, testCompare); err != nil {
		t.Fatal(err)
	}
	if kind, hello, err := codecproto.ReadFrame(&out, 'H'); err != nil || kind != 'H' || string(hello) != `{"protocol":4}` {
		t.Errorf("the first frame is %q %q, %v", kind, hello, err)
	}
	for i, want := range []media.Code{"", media.Corrupt, media.CodecCrashed, ""} {
		got, err := codecproto.ReadAnswer(&out, i, spec)
		if failure := media.FailureOf(err); want != "" && (failure == nil || failure.Code != want) {
			t.Errorf("image %d: %v, want %s", i, err, want)
		} else if want == "" && (err != nil || len(got.Files) != 4) {
			t.Errorf("image %d: %d outputs, %v", i, len(got.Files), err)
		}
	}
	if out.Len() != 0 {
		t.Errorf("%d unexpected bytes", out.Len())
	}
}
