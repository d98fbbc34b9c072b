package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/domain/catalog"
)

func (s *Server) createProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := requestBody(c, fiber.MIMEApplicationJSON)
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
	p, err := s.Catalog.Create(ctx, in, stateOf(c.Context()).traceparent)
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

// createOnce is createProduct for a request with an Idempotency-Key: all requests with the same key create one product and
// get the response to the first of them.
func (s *Server) createOnce(ctx context.Context, c *fiber.Ctx, in catalog.NewProductInput, key string) error {
	state := stateOf(c.Context())
	state.repeatable = true
	digest, err := fingerprint(in)
	if err != nil {
		return err
	}
	// There is no authentication yet, so a key belongs to the user who owns the product.
	id := catalog.IdempotencyKey{Principal: strconv.FormatInt(int64(in.UserID), 10), Key: key, Fingerprint: digest}
	saved, replayed, err := s.Catalog.CreateOnce(ctx, in, id, func(p catalog.Product) (catalog.SavedResponse, error) {
		r, err := s.created(p)
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	}, state.traceparent)
	switch {
	case errors.Is(err, catalog.ErrKeyReused):
		return fieldErrors{{headerKey, "reused", "the key was used for another request; use a new one"}}
	case errors.Is(err, catalog.ErrInProgress):
		return &httpError{codeInProgress, "a request with this Idempotency-Key is in progress; repeat it for the response"}
	case err != nil:
		return fmt.Errorf("create product once: %w", err)
	}
	r, err := restore(saved)
	if err != nil {
		return err
	}
	if replayed {
		c.Set(headerReplayed, "true")
	}
	r.send(c.Response())
	return nil
}

// fingerprint returns a digest of the content of a POST /products. The digest does not depend on white space, the order
// of fields, the notation of a price, or whether an empty field is present. Keys are kept for a day, so the next release
// must compute the same digest.
func fingerprint(in catalog.NewProductInput) (string, error) {
	canonical, err := encodeJSON(struct {
		UserID      int64    `json:"user_id"`
		Name        string   `json:"product_name"`
		Description string   `json:"product_description"`
		Price       string   `json:"product_price"`
		ImageURLs   []string `json:"product_images"`
	}{
		int64(in.UserID), in.Name, in.Description, in.Price.StringFixed(catalog.PriceDecimals),
		append([]string{}, in.ImageURLs...),
	})
	if err != nil {
		return "", fmt.Errorf("encode input: %w", err)
	}
	sum := sha256.Sum256(append([]byte("POST /products\n"), canonical...))
	return hex.EncodeToString(sum[:]), nil
}

// created returns the response to a POST that created p, with a key or without.
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

// decodeProduct reads the body of POST /products. The error lists all wrong fields, and wrongHeader if there is one.
func decodeProduct(body []byte, wrongHeader *fieldError) (catalog.NewProductInput, error) {
	r, err := newFieldReader(body)
	if err != nil {
		return catalog.NewProductInput{}, err
	}
	r.addWrong(wrongHeader)
	var in catalog.NewProductInput
	in.UserID = catalog.UserID(r.whole("user_id"))
	in.Name = r.text("product_name")
	in.Description = r.text("product_description")
	in.ImageURLs = r.texts("product_images")
	in.Price, in.PriceSet = r.price("product_price")
	return in, r.finish(catalog.CheckProduct(in))
}

func (s *Server) getProduct(ctx context.Context, c *fiber.Ctx) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	doc, err := s.Catalog.Get(ctx, id)
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
	body, err := s.Encoder.encodePage(page, next)
	if err != nil {
		return err
	}
	return sendJSON(c, body)
}

// patchProduct applies a JSON merge patch (RFC 7396): a field that is present is changed, one that is null is reset, and one
// that is absent stays as it is.
func (s *Server) patchProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := requestBody(c, mimeMergePatch, fiber.MIMEApplicationJSON)
	if err != nil {
		c.Set(headerAcceptPatch, mimeMergePatch+", "+fiber.MIMEApplicationJSON)
		return err
	}
	seen, wrongHeader := s.Encoder.revisions(&c.Request().Header)
	patch, err := decodePatch(body, wrongHeader)
	if err != nil {
		return err
	}
	id, err := productID(c)
	if err != nil {
		return err
	}
	p, err := s.Catalog.Patch(ctx, id, patch, seen, stateOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("patch product: %w", err)
	}
	return s.sendProduct(c, p)
}

// decodePatch reads the body of PATCH /products/:id. The error lists all wrong fields, and wrongHeader if there is one.
func decodePatch(body []byte, wrongHeader *fieldError) (catalog.ProductPatch, error) {
	r, err := newFieldReader(body)
	if err != nil {
		return catalog.ProductPatch{}, err
	}
	r.addWrong(wrongHeader)
	var patch catalog.ProductPatch
	switch name := "product_name"; {
	case r.null(name):
		r.refuse(name, "required", "a product has a name")
	case r.has(name):
		patch.Name = new(r.text(name))
	}
	switch name := "product_description"; {
	case r.null(name):
		patch.Description = new("")
	case r.has(name):
		patch.Description = new(r.text(name))
	}
	switch name := "product_price"; {
	case r.null(name):
		r.refuse(name, "required", "a product has a price")
	case r.has(name):
		if price, ok := r.price(name); ok {
			patch.Price = &price
		}
	}
	switch name := "product_images"; {
	case r.null(name):
		patch.ImageURLs = new([]string{})
	case r.has(name):
		patch.ImageURLs = new(r.texts(name))
	}
	for _, name := range []string{ // a client that sends back a whole product gets the names of fields to leave out
		"id", "user_id", "compressed_product_images", "images", "image_status", "version", "revision", "created_at", "updated_at",
	} {
		if _, ok := r.take(name); ok {
			r.refuse(name, "read_only", "cannot be changed; leave it out")
		}
	}
	return patch, r.finish(catalog.CheckPatch(patch))
}

func (s *Server) deleteProduct(ctx context.Context, c *fiber.Ctx) error {
	if err := checkNoBody(c); err != nil {
		return err
	}
	seen, wrongHeader := s.Encoder.revisions(&c.Request().Header)
	if wrongHeader != nil {
		return fieldErrors{*wrongHeader}
	}
	id, err := productID(c)
	if err != nil {
		return err
	}
	if err := s.Catalog.Delete(ctx, id, seen, stateOf(c.Context()).traceparent); err != nil {
		return fmt.Errorf("delete product: %w", err)
	}
	c.Status(fiber.StatusNoContent)
	return nil
}

// reprocessImage requests an image's processing again. The response does not wait for it.
func (s *Server) reprocessImage(ctx context.Context, c *fiber.Ctx) error {
	if err := checkNoBody(c); err != nil {
		return err
	}
	id, err := productID(c)
	if err != nil {
		return err
	}
	image, _ := parseID(c.Params("image_id")) // 0, if it is invalid, is no image's id; a missing product is reported first
	p, err := s.Catalog.Reprocess(ctx, id, catalog.ImageID(image), stateOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("reprocess image: %w", err)
	}
	return s.sendProduct(c.Status(fiber.StatusAccepted), p)
}
