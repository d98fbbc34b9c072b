package main_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"net/http"
	"strings"
	"testing"

	chaos "vitrine.io/pkg/test/chaos"
)

func TestASourceBehavesAsItsPathSays(t *testing.T) {
	t.Parallel()
	s, err := chaos.NewSource()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	get := func(ctx context.Context, path string) (status int, body []byte, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return resp.StatusCode, body, err
	}
	for path, want := range map[string]int{
		"/1/" + chaos.GoodJPEG: 200, "/2/" + chaos.GoodPNG: 200, "/3/" + chaos.GoodMoved: 200, "/4/" + chaos.GoodSlow: 200,
		"/5/" + chaos.Damaged: 0, "/6/" + chaos.Text: 0, "/7/" + chaos.Missing: 404,
		"/8/" + chaos.Away: 503, "/9/" + chaos.Huge: 0,
	} {
		status, body, err := get(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		_, _, undecodable := image.Decode(bytes.NewReader(body))
		if want == 200 && (status != 200 || undecodable != nil) {
			t.Errorf("%s: status %d, %v", path, status, undecodable)
		}
		if want != 200 && undecodable == nil || want > 200 && status != want {
			t.Errorf("%s: status %d and a picture", path, status)
		}
		if chaos.IsGood(path) != (want == 200) {
			t.Errorf("%s is good: %v", path, chaos.IsGood(path))
		}
	}
	huge, _, err := image.DecodeConfig(bytes.NewReader(must(get(t.Context(), "/9/"+chaos.Huge))))
	if err != nil || huge.Width != 40000 {
		t.Errorf("the header of a huge picture says %+v, %v", huge, err)
	}
	one, other := must(get(t.Context(), "/1/"+chaos.GoodJPEG)), must(get(t.Context(), "/1/"+chaos.GoodJPEG))
	if !bytes.Equal(one, other) {
		t.Error("one path is two pictures")
	}
	first, _, _ := get(t.Context(), "/1/"+chaos.GoodFlaky)
	second, _, _ := get(t.Context(), "/1/"+chaos.GoodFlaky)
	if first != 503 || second != 200 {
		t.Errorf("a flaky path answers %d and then %d", first, second)
	}
	if _, _, err := get(t.Context(), "/1/"+chaos.Short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("what ends early ends with %v", err)
	}
	if _, _, err := get(t.Context(), "/1/"+chaos.Broken); err == nil {
		t.Error("what breaks does not break")
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/1/"+chaos.Hanging, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("what hangs ends with %v", err)
	}
	_ = resp.Body.Close()
}

func must(_ int, body []byte, _ error) []byte { return body }

func TestEveryBehaviourIsKnownByTheEndOfItsURL(t *testing.T) {
	t.Parallel()
	if got := chaos.Behaviour("http://127.0.0.1:1/1/2/" + chaos.Huge); got != chaos.Huge || strings.Contains(got, "/") {
		t.Errorf("got %q", got)
	}
}
