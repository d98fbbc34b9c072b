package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

// revalidate lets a client keep an answer, but not use it without asking: a picture may be ready at any moment, and asking
// costs a 304.
const revalidate = "private, no-cache"

func (s *Server) createProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	in, err := decodeProduct(body)
	if err != nil {
		return err
	}
	p, err := s.Catalog.Create(ctx, in, exchangeOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("create product: %w", err)
	}
	encoded, etag, err := s.Encoder.Encode(p)
	if err != nil {
		return fmt.Errorf("encode product: %w", err)
	}
	c.Location("/products/" + p.ID.String())
	c.Set(fiber.HeaderETag, etag)
	return sendJSON(c.Status(fiber.StatusCreated), encoded)
}

func (s *Server) getProduct(ctx context.Context, c *fiber.Ctx) error {
	id, ok := parseID(c.Params("id"))
	if !ok {
		return fault.New(fault.NotFound, "product_not_found", "there is no such product")
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

// decodeProduct reads the body of POST /products. All wrong fields are told at once.
func decodeProduct(body []byte) (catalog.NewProductInput, error) {
	o, err := parseObject(body)
	if err != nil {
		return catalog.NewProductInput{}, err
	}
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
