package httpapi_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

var (
	_ catalog.DocumentEncoder = (*httpapi.Encoder)(nil)
	_ httpapi.Catalog         = (*catalog.Service)(nil)
)

func ready() catalog.Product {
	return catalog.Product{
		ID: 7, UserID: 3, Name: "Lamp", Price: decimal.RequireFromString("19.9"), Version: 4, Revision: 2,
		ImageURLs:  []string{"https://a.example/1", "https://a.example/2"},
		Compressed: []string{"products/7/9/1-x/full.jpg"},
		CreatedAt:  epoch, UpdatedAt: epoch.Local(),
		Images: []catalog.Image{
			{
				ID: 9, Position: 0, SourceURL: "https://a.example/1", Status: catalog.Ready, Attempts: 1, Width: 4000, Height: 3000,
				SourceBytes: 123456,
				Placeholder: "1QcSHQRnh493V4dIh4eXh1h4kJUI", Renditions: []catalog.Rendition{
					{
						Name: "full", Format: pipeline.JPEG, Width: 1600, Height: 1200, Bytes: 90000, Default: true,
						Score: 70.25,
						Key:   "products/7/9/1-x/full.jpg",
					},
				},
			},
			{
				ID: 10, Position: 1, SourceURL: "https://a.example/2", Status: catalog.Failed, Attempts: 5,
				ErrorCode: media.Corrupt, ErrorDetail: "the image is truncated", JobState: catalog.Idle, ReprocessError: media.Timeout,
			},
		},
	}
}

func TestEncoder(t *testing.T) {
	t.Parallel()
	t.Run("product", testEncoderProduct)
	t.Run("dropped_lowered_and_larger", testEncoderDroppedLoweredAndLarger)
	t.Run("reprocess", testEncoderReprocess)
	t.Run("tag", testEncoderTag)
	t.Run("tag_belongs_to_the_format", testEncoderTagBelongsToTheFormat)
}

func testEncoderReprocess(t *testing.T) {
	t.Parallel()
	for want, img := range map[string]catalog.Image{
		`null`: {Status: catalog.Ready, JobState: catalog.Idle},
		`{"status":"pending","error":null}`: {
			Status: catalog.Ready, JobState: catalog.Queued, // a new request ends the error of the one before
		},
		`{"status":"failed","error":{"code":"timeout","detail":"the image could not be processed again; its files are those of ` +
			`an earlier request"}}`: {Status: catalog.Ready, JobState: catalog.Idle, ReprocessError: media.Timeout},
	} {
		body, _, err := httpapi.NewEncoder(publicURL, 0).Encode(catalog.Product{Images: []catalog.Image{img}})
		if err != nil || !strings.Contains(string(body), `"reprocess":`+want+`,`) {
			t.Errorf("%+v: got %s and %v, want %s", img, body, err, want)
		}
	}
	for _, same := range [][]catalog.Image{ // a job that begins raises no version, so the document must stay the same
		{{Status: catalog.Ready, JobState: catalog.Queued}, {Status: catalog.Ready, JobState: catalog.Processing}},
		{{Status: catalog.Pending, JobState: catalog.Queued}, {Status: catalog.Pending, JobState: catalog.Processing}},
	} {
		var bodies []string
		for _, img := range same {
			body, _, err := httpapi.NewEncoder(publicURL, 0).Encode(catalog.Product{Images: []catalog.Image{img}})
			if err != nil {
				t.Error(err)
			}
			bodies = append(bodies, string(body))
		}
		if bodies[0] != bodies[1] {
			t.Errorf("got %s, then %s, for the same version", bodies[0], bodies[1])
		}
	}
}

// formats are the digests of the encoded product of ready() by tag. Another encoding needs another formatVersion, and so a
// new tag: add a row, and change none.
var formats = map[string]string{
	"d862f099": "e976d4da738563dbcd8fb1309084fec9f46f15e2d84eab91b9a9aed82982fe70",
}

func testEncoderTagBelongsToTheFormat(t *testing.T) {
	t.Parallel()
	e := httpapi.NewEncoder(publicURL, 0)
	body, _, err := e.Encode(ready())
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(body); formats[e.Tag()] != hex.EncodeToString(sum[:]) {
		t.Errorf("the tag %s has the digest %x, want %q: raise formatVersion if the encoding has changed",
			e.Tag(), sum, formats[e.Tag()])
	}
}

func testEncoderProduct(t *testing.T) {
	t.Parallel()
	e := httpapi.NewEncoder(publicURL+"/", 0)
	body, etag, err := e.Encode(ready())
	want := `{"id":7,"user_id":3,"product_name":"Lamp","product_description":"","product_price":"19.90",` +
		`"product_images":["https://a.example/1","https://a.example/2"],` +
		`"compressed_product_images":["https://img.example/vitrine/products/7/9/1-x/full.jpg"],"images":[` +
		`{"id":9,"position":0,"source_url":"https://a.example/1","status":"ready","attempts":1,` +
		`"error":null,"width":4000,"height":3000,"source_bytes":123456,"bytes_saved":33456,` +
		`"placeholder":"1QcSHQRnh493V4dIh4eXh1h4kJUI","reprocess":null,"renditions":[` +
		`{"name":"full","format":"jpeg","width":1600,"height":1200,` +
		`"bytes":90000,"ssimulacra2":70.25,"url":"https://img.example/vitrine/products/7/9/1-x/full.jpg"}]},` +
		`{"id":10,"position":1,"source_url":"https://a.example/2","status":"failed","attempts":5,` +
		`"error":{"code":"corrupt","detail":"the image is truncated"},"width":null,"height":null,` +
		`"source_bytes":null,"bytes_saved":null,"placeholder":null,"reprocess":null,"renditions":[]}],` +
		`"image_status":"partial","version":4,"revision":2,"created_at":"2026-03-01T12:30:45.123456Z",` +
		`"updated_at":"2026-03-01T12:30:45.123456Z"}`
	if err != nil || string(body) != want {
		t.Errorf("err %v\n got %s\nwant %s", err, body, want)
	}
	if want := `"4.2-` + e.Tag() + `"`; etag != want {
		t.Errorf("ETag is %s, want %s", etag, want)
	}
}

func testEncoderDroppedLoweredAndLarger(t *testing.T) {
	t.Parallel()
	p := ready()
	img := &p.Images[0]
	img.Width, img.Height, img.SourceBytes = 1600, 1200, 80000
	img.Renditions[0].Lowered = 40
	img.Renditions = append(img.Renditions, catalog.Rendition{
		Name: "card", Format: pipeline.JPEG, Width: 800, Height: 600, Bytes: 81000, Key: "products/7/9/1-x/card.jpg",
	})
	img.Dropped = []media.Dropped{{Name: "full", Format: pipeline.WebP, Reason: media.LargerThanSource}}
	body, _, err := httpapi.NewEncoder(publicURL, 0).Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"source_bytes":80000,"bytes_saved":-10000,`,
		`"ssimulacra2":70.25,"lowered_quality":40,"larger_than_source":true,"url":`,
		`"height":600,"bytes":81000,"url":`, // has fewer pixels than the source
		`],"dropped":[{"name":"full","format":"webp","reason":"larger_than_source"}]},`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("%s is not in %s", want, body)
		}
	}
}

func testEncoderTag(t *testing.T) {
	t.Parallel()
	tag := func(url string, epoch int64) string { return httpapi.NewEncoder(url, epoch).Tag() }
	if tag(publicURL, 0) != tag(publicURL+"/", 0) {
		t.Error("a trailing slash changes the tag, but not the bytes")
	}
	if tag(publicURL, 0) == tag(publicURL, 1) || tag(publicURL, 0) == tag("https://cdn.example", 0) {
		t.Error("the tag does not depend on epoch and public URL")
	}
}
