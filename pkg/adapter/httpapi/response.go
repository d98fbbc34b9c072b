package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/domain/catalog"
)

// revalidate allows a client to keep a response, but requires a conditional request before each use, because an image may
// become ready at any moment. If nothing changed, the response is a 304 without a body.
const revalidate = "private, no-cache"

// response is a complete response that has not been sent yet. Its JSON is the format of a catalog.SavedResponse. Saved
// responses are kept for a day, so the next release must be able to read them.
type response struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

// send writes r to resp. r.Body must not change any more.
func (r response) send(resp *fasthttp.Response) {
	for name, value := range r.Headers {
		resp.Header.Set(name, value)
	}
	resp.SetStatusCode(r.Status)
	resp.SetBodyRaw(r.Body)
}

// restore returns the response whose JSON is saved.
func restore(saved catalog.SavedResponse) (response, error) {
	var r response
	if err := json.Unmarshal(saved, &r); err != nil {
		return response{}, fmt.Errorf("decode saved response: %w", err)
	}
	if r.Status == 0 || r.Headers == nil {
		return response{}, errors.New("decode saved response: it has no status or no headers")
	}
	return r, nil
}

// productResponse returns the response with a product, as GET sends it, and another status.
func (s *Server) productResponse(status int, p catalog.Product) (response, error) {
	body, etag, err := s.Encoder.Encode(p)
	if err != nil {
		return response{}, fmt.Errorf("encode product: %w", err)
	}
	return response{Status: status, Body: body, Headers: map[string]string{
		fiber.HeaderETag:         etag,
		fiber.HeaderContentType:  fiber.MIMEApplicationJSON,
		fiber.HeaderCacheControl: revalidate,
	}}, nil
}

// sendProduct sends a product as GET does, with another status.
func (s *Server) sendProduct(c *fiber.Ctx, status int, p catalog.Product) error {
	r, err := s.productResponse(status, p)
	if err != nil {
		return err
	}
	r.send(c.Response())
	return nil
}

// sendJSON sends body, which must not change any more.
func sendJSON(c *fiber.Ctx, body []byte) error {
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Set(fiber.HeaderCacheControl, revalidate)
	c.Response().SetBodyRaw(body)
	return nil
}

// encodeJSON is json.Marshal without the escapes that only JSON inside HTML needs, so that an & in a URL stays readable.
func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// formatVersion is raised whenever the same product would be encoded differently, so that clients and caches do
// not keep the old encoding.
const formatVersion = 4

// timeLayout is RFC 3339 in UTC with microseconds, which is what Postgres keeps.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// Encoder makes the JSON form of a product. It implements catalog.DocumentEncoder.
type Encoder struct {
	publicURL string
	tag       string
}

// NewEncoder returns an Encoder that puts publicURL before every object key. epoch is that of the installation. When it
// is incremented, every ETag changes, and every cached document is a miss.
func NewEncoder(publicURL string, epoch int64) *Encoder {
	publicURL = strings.TrimRight(publicURL, "/")
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%d", formatVersion, publicURL, epoch))
	return &Encoder{publicURL: publicURL, tag: hex.EncodeToString(sum[:4])}
}

// Tag identifies the inputs of a document other than the product: format, public URL and epoch.
func (e *Encoder) Tag() string { return e.tag }

// Encode returns the product's JSON and its ETag, with the quotes: "version.revision-tag". Equal versions have
// equal bytes.
func (e *Encoder) Encode(p catalog.Product) (body []byte, etag string, err error) {
	if body, err = encodeJSON(e.toProductDTO(p)); err != nil {
		return nil, "", err
	}
	etag = `"` + strconv.FormatInt(p.Version, 10) + "." + strconv.FormatInt(p.Revision, 10) + "-" + e.tag + `"`
	return body, etag, nil
}

// encodePage encodes a page from the documents that GET returns for its products.
func (e *Encoder) encodePage(page catalog.Page, next string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(`{"products":[`)
	for i, p := range page.Products {
		if i > 0 {
			out.WriteByte(',')
		}
		body, _, err := e.Encode(p)
		if err != nil {
			return nil, fmt.Errorf("encode product: %w", err)
		}
		out.Write(body)
	}
	out.WriteString(`],"next_cursor":`)
	if next == "" {
		out.WriteString("null}")
	} else {
		out.WriteString(`"` + next + `"}`) // base64url needs no escaping
	}
	return out.Bytes(), nil
}

// revisionOf returns the revision in an ETag of this API, or false for any other tag, including an ETag with an old Tag.
// It ignores the version, because the progress of a worker must not make a client's change fail.
func (e *Encoder) revisionOf(etag string) (int64, bool) {
	numbers, tag, _ := strings.Cut(strings.Trim(etag, `"`), "-")
	version, revision, _ := strings.Cut(numbers, ".")
	_, numbered := parseID(version)
	n, ok := parseID(revision)
	return n, ok && numbered && tag == e.tag
}

// matches reports whether etag is in an If-None-Match header, by weak comparison (RFC 9110, 13.1.2). The lines of the header
// are one list.
func matches(ifNoneMatch []string, etag string) bool {
	rest := strings.TrimSpace(strings.Join(ifNoneMatch, ", "))
	if rest == "*" {
		return true
	}
	for rest != "" {
		rest = strings.TrimPrefix(strings.TrimLeft(rest, ", \t"), "W/")
		if !strings.HasPrefix(rest, `"`) {
			return false // not a list of entity tags
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return false
		}
		if rest[:end+2] == etag {
			return true
		}
		rest = rest[end+2:]
	}
	return false
}

// revisions returns the revisions in an If-Match header. It returns nil, which matches every revision, if there is no
// header or it is "*". Weak tags and unknown tags match none (RFC 9110, 13.1.1).
func (e *Encoder) revisions(h *fasthttp.RequestHeader) (catalog.Revisions, *fieldError) {
	lines := h.PeekAll(fiber.HeaderIfMatch)
	if len(lines) == 0 {
		return nil, nil
	}
	seen := catalog.Revisions{}
	for _, line := range lines {
		text := strings.Trim(string(line), " \t")
		if text == "*" && len(lines) == 1 {
			return nil, nil
		}
		tags, ok := entityTags(text)
		if !ok {
			return nil, &fieldError{
				inHeader, fiber.HeaderIfMatch, "invalid_etag", "must be * or a list of entity tags, with their quotes",
			}
		}
		for _, tag := range tags {
			if revision, ok := e.revisionOf(tag); ok {
				seen = append(seen, revision)
			}
		}
	}
	return seen, nil
}

// entityTags returns the tags of a list, with quotes and W/, or false if it is not a list of tags (RFC 9110, 8.8.3).
func entityTags(list string) (tags []string, ok bool) {
	for rest := list; ; {
		rest = strings.TrimLeft(rest, ", \t")
		if rest == "" {
			return tags, len(tags) > 0
		}
		weak := len(rest) - len(strings.TrimPrefix(rest, "W/"))
		opaque, after, closed := strings.Cut(strings.TrimPrefix(rest[weak:], `"`), `"`)
		if !strings.HasPrefix(rest[weak:], `"`) || !closed || strings.ContainsFunc(opaque, unfit) {
			return nil, false
		}
		tags = append(tags, rest[:weak]+`"`+opaque+`"`)
		if rest = strings.TrimLeft(after, " \t"); rest != "" && rest[0] != ',' {
			return nil, false
		}
	}
}

// productDTO is the JSON form of a product. No array is ever null.
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

// imageDTO is the JSON form of an image. A value that is not known yet is null.
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
	Reprocess   *reprocessDTO  `json:"reprocess"`
	Renditions  []renditionDTO `json:"renditions"`
	Dropped     []droppedDTO   `json:"dropped,omitempty"`
}

type errorDTO struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// reprocessDTO is the last reprocessing of a ready image, unless it has succeeded.
type reprocessDTO struct {
	Status string    `json:"status"` // pending or failed
	Error  *errorDTO `json:"error"`
}

type renditionDTO struct {
	Name   string  `json:"name"`
	Format string  `json:"format"`
	Width  int     `json:"width"`
	Height int     `json:"height"`
	Bytes  int64   `json:"bytes"`
	Score  float64 `json:"ssimulacra2,omitempty"`
	// Lowered is the quality if it was lowered to make the file smaller than the source. Larger is set if the file is still
	// larger.
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
		Width:       nonZero(img.Width),
		Height:      nonZero(img.Height),
		SourceBytes: nonZero(img.SourceBytes),
		Placeholder: nonZero(img.Placeholder),
		Renditions:  make([]renditionDTO, len(img.Renditions)),
	}
	if img.ErrorCode != "" {
		dto.Error = &errorDTO{Code: string(img.ErrorCode), Detail: img.ErrorDetail}
	}
	switch status := img.ReprocessStatus(); status {
	case catalog.Failed:
		dto.Reprocess = &reprocessDTO{string(status), &errorDTO{string(img.ReprocessError), reprocessDetail}}
	case catalog.Pending:
		dto.Reprocess = &reprocessDTO{Status: string(status)}
	}
	for i, r := range img.Renditions {
		dto.Renditions[i] = renditionDTO{
			Name: r.Name, Format: string(r.Format), Width: r.Width, Height: r.Height, Bytes: r.Bytes, Score: r.Score,
			Lowered: r.Lowered, Larger: img.LargerThanSource(r), URL: e.url(r.Key),
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

// reprocessDetail is the detail of every failed reprocessing: the row has only its code.
const reprocessDetail = "the image could not be processed again; its files are those of an earlier request"

func (e *Encoder) url(key string) string { return e.publicURL + "/" + key }

// nonZero returns nil for a zero value, which is not known yet.
func nonZero[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

func toTime(t time.Time) string { return t.UTC().Format(timeLayout) }
