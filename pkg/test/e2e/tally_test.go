package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/test/client"
)

// readyProduct returns a product whose image is ready after some attempts.
func readyProduct(version int64, attempts int, url string) client.Product {
	return client.Product{ID: 3, ImageStatus: "ready", Version: version, Images: []client.Image{
		{Status: "ready", Attempts: attempts, Renditions: []client.Rendition{{Name: "thumb", URL: url}}},
	}}
}

func TestTally(t *testing.T) {
	t.Parallel()
	t.Run("repeated_and_unready_images", testTallyRepeatedAndUnreadyImages)
	t.Run("downloads", testTallyDownloads)
	t.Run("start_time", testTallyStartTime)
	t.Run("failed_requests", testTallyFailedRequests)
}

func testTallyRepeatedAndUnreadyImages(t *testing.T) {
	t.Parallel()
	failed := readyProduct(2, 1, "")
	failed.Images[0].Status = "failed"
	failed.Images[0].Error = &client.ImageError{Code: "timeout"}
	for name, row := range map[string]struct {
		product                       client.Product
		repeated, retried, taken, bad int
		want                          string
	}{
		"once":            {readyProduct(2, 1, "http://h/m/products/3/9/1-ab/thumb.jpg"), 0, 0, 0, 0, ""},
		"retried":         {readyProduct(4, 3, "http://h/m/products/3/9/3-ab/thumb.jpg"), 0, 2, 0, 0, ""},
		"taken over":      {readyProduct(2, 1, "http://h/m/products/3/9/2-ab/thumb.jpg"), 0, 0, 1, 0, ""},
		"processed twice": {readyProduct(3, 1, "x"), 1, 0, 0, 0, "1 of 1 images were processed twice"},
		"not ready":       {failed, 0, 0, 0, 1, "0 of 1 accepted images are ready: product 3 image 0: failed timeout"},
		"unexpected URL":  {readyProduct(2, 1, "a/b-c/d"), 0, 0, 0, 0, ""},
	} {
		c := tally{Accepted: 1, Images: 1}
		c.add(row.product)
		if c.Repeated != row.repeated || c.Retried != row.retried || c.Superseded != row.taken || len(c.Unready) != row.bad {
			t.Errorf("%s: got %+v", name, c)
		}
		err := c.check()
		if (err == nil) != (row.want == "") || err != nil && err.Error() != row.want {
			t.Errorf("%s: got error %v, want %q", name, err, row.want)
		}
	}
}

func testTallyDownloads(t *testing.T) {
	t.Parallel()
	c := tally{Accepted: 1, Images: 1}
	c.add(readyProduct(4, 3, "http://h/m/products/3/9/5-ab/thumb.jpg")) // three finished attempts, two more were superseded
	for fetched, want := range map[int]string{
		5: "", 6: "6 downloads for 1 images, 2 retries and 2 superseded attempts: some were processed twice",
	} {
		c.Fetched = fetched
		if err := c.check(); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%d downloads: got %v, want %q", fetched, err, want)
		}
	}
}

func testTallyStartTime(t *testing.T) {
	t.Parallel()
	var c tally
	for _, second := range []int64{5, 3, 4} {
		c.add(client.Product{ImageStatus: "ready", Version: 1, CreatedAt: time.Unix(second, 0)})
	}
	if c.Started != time.Unix(3, 0) {
		t.Errorf("got %v", c.Started)
	}
}

func testTallyFailedRequests(t *testing.T) {
	t.Parallel()
	var none tally
	for range 30 {
		none.addFailure(errors.New("503"))
	}
	err := none.check()
	if err == nil || !strings.Contains(err.Error(), "30 of 0 requests failed: 503; 503") || len(none.Failures) != maxExamples {
		t.Errorf("got %v with %d examples", err, len(none.Failures))
	}
	some := tally{Requests: 2, Accepted: 1, Images: 1, Ready: 1}
	if err := some.checkAll(); err != nil {
		t.Error(err)
	}
	some.addFailure(errors.New("503"))
	if some.check() != nil || some.checkAll() == nil {
		t.Error("checkAll accepts a failed request")
	}
	for range 30 {
		some.addMissing(1, errors.New("404"))
	}
	if len(some.Unready) != maxExamples || some.check() == nil {
		t.Errorf("got %v", some.Unready)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	var ends []time.Time
	for i := range 100 {
		ends = append(ends, time.Unix(0, 0).Add(time.Duration(100-i)*250*time.Millisecond)) // any order
	}
	ends[0] = ends[0].Add(time.Hour)
	got, err := rate(ends, 0.1, 0.6)
	if err != nil || got < 3.9 || got > 4.1 {
		t.Errorf("got %v, %v, want 4", got, err)
	}
	for name, ends := range map[string][]time.Time{"too few": ends[:1], "none": nil, "no time": make([]time.Time, 10)} {
		if got, err := rate(ends, 0.1, 0.6); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestSamplesAndLogs(t *testing.T) {
	t.Parallel()
	text := "# HELP a is\na 1\na{x=\"}\"} 2 1700000000\nab 3\na nothing\na{}\n"
	got := samples(text, "a")
	if len(got) != 2 || got[0] != (sample{"", 1}) || got[1] != (sample{`x="}"`, 2}) {
		t.Errorf("got %+v", got)
	}
	if n, err := checkLogs("{}\n\n{\"a\": 1}\n"); n != 2 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	for _, text := range []string{"plain", "[1]", "{} {}", "\"text\""} {
		if n, err := checkLogs(text); err == nil {
			t.Errorf("%s: got %d lines, want an error", text, n)
		}
	}
}
