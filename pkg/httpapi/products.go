package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

// revalidate lets a client keep an answer, but not use it without asking: a picture may be ready at any moment, and asking
// costs a 304.
const revalidate = "private, no-cache"

// errNoProduct is the answer to what is not even an id.
var errNoProduct = fault.New(fault.NotFound, "product_not_found", "there is no such product")

func (s *Server) createProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	key, wrongKey := idempotencyKey(&c.Request().Header)
	in, err := decodeProduct(body, wrongKey)
	if err != nil {
		return err
	}
	if key != "" {
		return s.createOnce(ctx, c, in, key)
	}
	p, err := s.Catalog.Create(ctx, in, exchangeOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("create product: %w", err)
	}
	r, err := s.created(p)
	if err != nil {
		return err
	}
	r.send(c.Response())
	return nil
}

// created is the answer to a POST that made p, with a key or without.
func (s *Server) created(p catalog.Product) (response, error) {
	body, etag, err := s.Encoder.Encode(p)
	if err != nil {
		return response{}, fmt.Errorf("encode product: %w", err)
	}
	return response{Status: fiber.StatusCreated, Body: body, Headers: map[string]string{
		fiber.HeaderLocation:     "/products/" + p.ID.String(),
		fiber.HeaderETag:         etag,
		fiber.HeaderContentType:  fiber.MIMEApplicationJSON,
		fiber.HeaderCacheControl: revalidate,
	}}, nil
}

// response is a whole response before it is sent. Its JSON is the format of a catalog.SavedResponse, which is kept for a
// day: another release must be able to read it.
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

// save returns r as the catalogue keeps it.
func (r response) save() (catalog.SavedResponse, error) {
	saved, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode response: %w", err)
	}
	return saved, nil
}

// restore returns the response that save encoded.
func restore(saved catalog.SavedResponse) (response, error) {
	var r response
	if err := json.Unmarshal(saved, &r); err != nil {
		return response{}, fmt.Errorf("decode saved response: %w", err)
	}
	if r.Status == 0 {
		return response{}, errors.New("decode saved response: it has no status")
	}
	return r, nil
}

func (s *Server) getProduct(ctx context.Context, c *fiber.Ctx) error {
	id, ok := parseID(c.Params("id"))
	if !ok {
		return errNoProduct
	}
	doc, err := s.Catalog.Get(ctx, catalog.ProductID(id))
	if err != nil {
		return fmt.Errorf("get product: %w", err)
	}
	c.Set(fiber.HeaderETag, doc.ETag)
	if seen := c.Request().Header.Peek(fiber.HeaderIfNoneMatch); len(seen) > 0 && matches(seen, doc.ETag) {
		c.Set(fiber.HeaderCacheControl, revalidate)
		c.Status(fiber.StatusNotModified)
		return nil
	}
	return sendJSON(c, doc.Body)
}

func (s *Server) listProducts(ctx context.Context, c *fiber.Ctx) error {
	q, err := parseQuery(c.Context().QueryArgs())
	if err != nil {
		return err
	}
	page, err := s.Catalog.List(ctx, q)
	if err != nil {
		return fmt.Errorf("list products: %w", err)
	}
	var next string
	if page.Next != nil {
		next = encodeCursor(q, *page.Next)
		c.Set(fiber.HeaderLink, `</products?cursor=`+next+`&limit=`+strconv.Itoa(q.Limit)+`>; rel="next"`)
	}
	body, err := s.encodePage(page, next)
	if err != nil {
		return err
	}
	return sendJSON(c, body)
}

// encodePage puts a list together from the very bytes that GET answers for each product.
func (s *Server) encodePage(page catalog.Page, next string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(`{"products":[`)
	for i, p := range page.Products {
		if i > 0 {
			out.WriteByte(',')
		}
		body, _, err := s.Encoder.Encode(p)
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

// decodeProduct reads the body of POST /products. All wrong fields are told at once, a wrong header with them.
func decodeProduct(body []byte, wrongHeader *fieldError) (catalog.NewProductInput, error) {
	o, err := parseObject(body)
	if err != nil {
		return catalog.NewProductInput{}, err
	}
	o.note(wrongHeader)
	var in catalog.NewProductInput
	in.UserID = catalog.UserID(o.whole("user_id"))
	in.Name = o.text("product_name")
	in.Description = o.text("product_description")
	in.ImageURLs = o.texts("product_images")
	in.Price, in.PriceSet = o.price("product_price")
	o.refuseRest()
	return in, o.verdict(catalog.CheckProduct(in))
}

// encodeJSON is json.Marshal without the escapes that only JSON inside HTML needs: a URL's & stays readable.
func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err //nolint:wrapcheck // the caller knows what it was
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}
