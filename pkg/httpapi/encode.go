package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"vitrine.io/pkg/catalog"
)

// formatVersion is raised whenever the same product would be encoded differently, so that no client and no cache takes old
// bytes for new ones.
const formatVersion = 3

// timeLayout is RFC 3339 in UTC with microseconds, which is what Postgres keeps.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// Encoder makes the one JSON form of a product. It implements catalog.Encoder.
type Encoder struct {
	publicURL string
	tag       string
}

// NewEncoder returns an Encoder that puts publicURL before every object key. epoch is the installation's: raising it makes
// every document that was handed out so far another one.
func NewEncoder(publicURL string, epoch int64) *Encoder {
	publicURL = strings.TrimRight(publicURL, "/")
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%d", formatVersion, publicURL, epoch))
	return &Encoder{publicURL: publicURL, tag: hex.EncodeToString(sum[:4])}
}

// Tag names everything beside the product that its document depends on: format, public URL and epoch.
func (e *Encoder) Tag() string { return e.tag }

// Encode returns the product's JSON and its ETag, with the quotes: "version.revision-tag". The same version has always the
// same bytes.
func (e *Encoder) Encode(p catalog.Product) (body []byte, etag string, err error) {
	if body, err = encodeJSON(e.toProductDTO(p)); err != nil {
		return nil, "", err
	}
	etag = `"` + strconv.FormatInt(p.Version, 10) + "." + strconv.FormatInt(p.Revision, 10) + "-" + e.tag + `"`
	return body, etag, nil
}

// revisionOf returns the revision in one of our ETags, or false for one that is not ours, or no longer. The version does not
// matter: a worker's progress must not fail a client's change.
func (e *Encoder) revisionOf(etag string) (int64, bool) {
	numbers, tag, _ := strings.Cut(strings.Trim(etag, `"`), "-")
	version, revision, _ := strings.Cut(numbers, ".")
	_, numbered := parseID(version)
	n, ok := parseID(revision)
	return n, ok && numbered && tag == e.tag
}

// productDTO is a product as the API answers it. No array is ever null.
type productDTO struct {
	ID          int64      `json:"id"`
	UserID      int64      `json:"user_id"`
	Name        string     `json:"product_name"`
	Description string     `json:"product_description"`
	Price       string     `json:"product_price"` // two decimals
	ImageURLs   []string   `json:"product_images"`
	Compressed  []string   `json:"compressed_product_images"` // URLs
	Images      []imageDTO `json:"images"`
	ImageStatus string     `json:"image_status"`
	Version     int64      `json:"version"`
	Revision    int64      `json:"revision"`
	CreatedAt   string     `json:"created_at"`
	UpdatedAt   string     `json:"updated_at"`
}

// imageDTO is a picture. What is not known yet is null.
type imageDTO struct {
	ID          int64          `json:"id"`
	Position    int            `json:"position"`
	SourceURL   string         `json:"source_url"`
	Status      string         `json:"status"`
	Attempts    int            `json:"attempts"`
	Error       *errorDTO      `json:"error"`
	Width       *int           `json:"width"` // of the source, upright
	Height      *int           `json:"height"`
	SourceBytes *int64         `json:"source_bytes"`
	BytesSaved  *int64         `json:"bytes_saved"` // by the default rendition
	Placeholder *string        `json:"placeholder"`
	Renditions  []renditionDTO `json:"renditions"`
	Dropped     []droppedDTO   `json:"dropped,omitempty"`
}

type errorDTO struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

type renditionDTO struct {
	Name   string  `json:"name"`
	Format string  `json:"format"`
	Width  int     `json:"width"`
	Height int     `json:"height"`
	Bytes  int64   `json:"bytes"`
	Score  float64 `json:"ssimulacra2,omitempty"`
	// Lowered is the quality where it had to be lowered, Larger that it is larger than the source all the same.
	Lowered int    `json:"lowered_quality,omitempty"`
	Larger  bool   `json:"larger_than_source,omitempty"`
	URL     string `json:"url"`
}

type droppedDTO struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Reason string `json:"reason"`
}

func (e *Encoder) toProductDTO(p catalog.Product) productDTO {
	dto := productDTO{
		ID:          int64(p.ID),
		UserID:      int64(p.UserID),
		Name:        p.Name,
		Description: p.Description,
		Price:       p.Price.StringFixed(catalog.PriceDecimals),
		ImageURLs:   append([]string{}, p.ImageURLs...),
		Compressed:  make([]string, len(p.Compressed)),
		Images:      make([]imageDTO, len(p.Images)),
		ImageStatus: string(p.ImageStatus()),
		Version:     p.Version,
		Revision:    p.Revision,
		CreatedAt:   toTime(p.CreatedAt),
		UpdatedAt:   toTime(p.UpdatedAt),
	}
	for i, key := range p.Compressed {
		dto.Compressed[i] = e.url(key)
	}
	for i, img := range p.Images {
		dto.Images[i] = e.toImageDTO(img)
	}
	return dto
}

func (e *Encoder) toImageDTO(img catalog.Image) imageDTO {
	dto := imageDTO{
		ID:          int64(img.ID),
		Position:    img.Position,
		SourceURL:   img.SourceURL,
		Status:      string(img.Status),
		Attempts:    img.Attempts,
		Width:       known(img.Width),
		Height:      known(img.Height),
		SourceBytes: known(img.SourceBytes),
		Placeholder: known(img.Placeholder),
		Renditions:  make([]renditionDTO, len(img.Renditions)),
	}
	if img.ErrorCode != "" {
		dto.Error = &errorDTO{Code: string(img.ErrorCode), Detail: img.ErrorDetail}
	}
	for i, r := range img.Renditions {
		dto.Renditions[i] = renditionDTO{
			Name: r.Name, Format: string(r.Format), Width: r.Width, Height: r.Height, Bytes: r.Bytes, Score: r.Score,
			Lowered: r.Lowered, Larger: img.Exceeds(r), URL: e.url(r.Key),
		}
	}
	if saved, ok := img.BytesSaved(); ok {
		dto.BytesSaved = &saved
	}
	for _, d := range img.Dropped {
		dto.Dropped = append(dto.Dropped, droppedDTO{Name: d.Name, Format: string(d.Format), Reason: string(d.Reason)})
	}
	return dto
}

func (e *Encoder) url(key string) string { return e.publicURL + "/" + key }

// known returns nil for a zero value: it is not known yet.
func known[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

func toTime(t time.Time) string { return t.UTC().Format(timeLayout) }
