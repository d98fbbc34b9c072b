package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vitrine.io/pkg/test/client"
)

// tally is the result of burst and load, which print it as JSON.
type tally struct {
	Requests int      `json:"requests"`
	Failed   int      `json:"failed"`   // requests without the expected response
	Failures []string `json:"failures"` // the first failed requests
	Refused  int      `json:"refused"`  // failed POSTs with 503 and Retry-After
	Reads    int      `json:"reads"`    // GETs among the requests
	Unread   int      `json:"unread"`   // failed GETs

	Accepted   int      `json:"accepted"` // products created with 201
	Images     int      `json:"images"`   // of the accepted products
	Ready      int      `json:"ready"`
	Unready    []string `json:"unready"`    // the first images that did not become ready
	Repeated   int      `json:"repeated"`   // results beyond one per attempt: images processed twice
	Retried    int      `json:"retried"`    // attempts beyond the first of each image
	Superseded int      `json:"superseded"` // superseded attempts of images that are ready
	Fetched    int      `json:"fetched"`    // downloads that the image server has served, with -counted
	Renditions []string `json:"renditions"` // distinct names
	Downloaded int      `json:"downloaded"` // URLs

	Started time.Time   `json:"started"` // when the first product was created
	Ends    []time.Time `json:"ends"`    // time of the last change of each product
}

// maxExamples limits Failures and Unready.
const maxExamples = 10

// addFailure counts a request without the expected response.
func (t *tally) addFailure(err error) {
	t.Failed++
	if len(t.Failures) < maxExamples {
		t.Failures = append(t.Failures, err.Error())
	}
}

// add adds an accepted product. Every finished attempt increases the product's version by one, and nothing else does.
func (t *tally) add(p client.Product) {
	attempts := 0
	for i, img := range p.Images {
		attempts += img.Attempts
		t.Retried += max(0, img.Attempts-1)
		if img.Status == "ready" {
			t.Ready++
		} else {
			state := img.Status
			if img.Error != nil {
				state += " " + img.Error.Code
			}
			t.unready(fmt.Sprintf("product %d image %d: %s", p.ID, i, state))
		}
		for _, r := range img.Renditions {
			if !slices.Contains(t.Renditions, r.Name) {
				t.Renditions = append(t.Renditions, r.Name)
			}
		}
		if len(img.Renditions) > 0 {
			t.Superseded += max(0, attemptNumber(img.Renditions[0].URL)-img.Attempts)
		}
	}
	t.Repeated += max(0, int(p.Version)-1-attempts)
	if t.Started.IsZero() || p.CreatedAt.Before(t.Started) {
		t.Started = p.CreatedAt
	}
	t.Ends = append(t.Ends, p.UpdatedAt)
}

// addMissing adds an accepted product that is not found or does not settle.
func (t *tally) addMissing(id int64, err error) {
	t.unready(fmt.Sprintf("product %d: %v", id, err))
}

func (t *tally) unready(text string) {
	if len(t.Unready) < maxExamples {
		t.Unready = append(t.Unready, text)
	}
}

// attemptNumber returns the attempt in a rendition's URL: 2 for .../products/1/100/2-5f3a9c/thumb.jpg. It returns 0 if
// there is none.
func attemptNumber(url string) int {
	parts := strings.Split(url, "/")
	if len(parts) < 2 {
		return 0
	}
	number, _, _ := strings.Cut(parts[len(parts)-2], "-")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}

// check returns an error unless every accepted image is ready and was processed once.
func (t tally) check() error {
	switch {
	case t.Accepted == 0:
		return fmt.Errorf("no product was accepted; %d of %d requests failed: %s",
			t.Failed, t.Requests, strings.Join(t.Failures, "; "))
	case t.Ready != t.Images || len(t.Unready) > 0:
		return fmt.Errorf("%d of %d accepted images are ready: %s", t.Ready, t.Images, strings.Join(t.Unready, "; "))
	case t.Repeated > 0:
		return fmt.Errorf("%d of %d images were processed twice", t.Repeated, t.Images)
	case t.Fetched > t.Images+t.Retried+t.Superseded:
		return fmt.Errorf("%d downloads for %d images, %d retries and %d superseded attempts: some were processed twice",
			t.Fetched, t.Images, t.Retried, t.Superseded)
	}
	return nil
}

// checkAll is check, and also returns an error if a request failed.
func (t tally) checkAll() error {
	if t.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %s", t.Failed, t.Requests, strings.Join(t.Failures, "; "))
	}
	return t.check()
}

// checkOutage is check, and also returns an error if a GET failed, if a POST failed without 503 and Retry-After, or if none
// failed.
func (t tally) checkOutage() error {
	if t.Refused == 0 {
		return fmt.Errorf("none of %d writes was refused: Postgres was not away", t.Requests-t.Reads)
	}
	if t.Reads == 0 || t.Unread > 0 || t.Failed > t.Refused {
		return fmt.Errorf("%d of %d reads failed, and %d of %d failed writes had a 503 with Retry-After: %s",
			t.Unread, t.Reads, t.Refused, t.Failed-t.Unread, strings.Join(t.Failures, "; "))
	}
	return t.check()
}

// rate returns the number of ends per second between the quantiles from and to, where all workers are busy.
func rate(ends []time.Time, from, to float64) (float64, error) {
	sorted := slices.SortedFunc(slices.Values(ends), time.Time.Compare)
	first, last := int(from*float64(len(sorted))), int(to*float64(len(sorted)))
	if last <= first || last >= len(sorted) {
		return 0, fmt.Errorf("%d products are too few for a rate", len(sorted))
	}
	seconds := sorted[last].Sub(sorted[first]).Seconds()
	if seconds <= 0 {
		return 0, fmt.Errorf("%d products ended at the same time", last-first)
	}
	return float64(last-first) / seconds, nil
}
