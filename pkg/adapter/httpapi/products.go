package httpapi

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func (s *Server) createProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := requestBody(c, fiber.MIMEApplicationJSON)
	if err != nil {
		return err
	}
	key, outside := requestKey(c)
	in, err := decodeProduct(body, outside)
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

// createOnce is createProduct for a request with an Idempotency-Key.
func (s *Server) createOnce(ctx context.Context, c *fiber.Ctx, in catalog.NewProductInput, key string) error {
	digest, err := productFingerprint(in)
	if err != nil {
		return err
	}
	id := catalog.IdempotencyKey{Principal: strconv.FormatInt(int64(in.UserID), 10), Key: key, Fingerprint: digest}
	saved, replayed, err := s.Catalog.CreateOnce(ctx, in, id, saving(s.created), stateOf(c.Context()).traceparent)
	return sendOnce(c, "create product once", saved, replayed, err)
}

// productFingerprint returns the fingerprint of a POST /products. It does not depend on white space, the order of fields,
// the notation of a price, or whether an empty field is present.
func productFingerprint(in catalog.NewProductInput) (string, error) {
	return fingerprint("POST /products", struct {
		UserID      int64    `json:"user_id"`
		Name        string   `json:"product_name"`
		Description string   `json:"product_description"`
		Price       string   `json:"product_price"`
		ImageURLs   []string `json:"product_images"`
	}{
		int64(in.UserID), in.Name, in.Description, in.Price.StringFixed(catalog.PriceDecimals),
		append([]string{}, in.ImageURLs...),
	})
}

// created returns the response to a POST that created p, with a key or without.
func (s *Server) created(p catalog.Product) (response, error) {
	r, err := s.productResponse(fiber.StatusCreated, p)
	if err == nil {
		r.Headers[fiber.HeaderLocation] = "/products/" + p.ID.String()
	}
	return r, err
}

// decodeProduct reads the body of POST /products, and normalizes its texts. The error lists all wrong fields, and those
// outside the body.
func decodeProduct(body []byte, outside fieldErrors) (catalog.NewProductInput, error) {
	r, err := newFieldReader(body, outside)
	if err != nil {
		return catalog.NewProductInput{}, err
	}
	r.ignoreNull("user_id", "product_name", "product_description", "product_images", "product_price")
	var in catalog.NewProductInput
	in.UserID = catalog.UserID(r.between("user_id", 1, math.MaxInt64))
	in.Name = r.text("product_name")
	in.Description = r.text("product_description")
	in.ImageURLs = r.texts("product_images")
	in.Price, in.PriceSet = r.price("product_price")
	in = in.Normalized()
	return in, r.finish(catalog.CheckProduct(in))
}

func (s *Server) getProduct(ctx context.Context, c *fiber.Ctx) error {
	id, err := productID(c)
	if err != nil {
		return err
	}
	doc, hit, err := s.Catalog.Cached(ctx, id)
	if err == nil && !hit {
		doc, err = s.loadProduct(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("get product: %w", err)
	}
	c.Set(fiber.HeaderETag, doc.ETag)
	if matches(headerLines(&c.Request().Header, fiber.HeaderIfNoneMatch), doc.ETag) {
		c.Set(fiber.HeaderCacheControl, revalidate)
		c.Status(fiber.StatusNotModified)
		return nil
	}
	return sendJSON(c, doc.Body)
}

// loadProduct loads a product that is not cached.
func (s *Server) loadProduct(ctx context.Context, id catalog.ProductID) (catalog.Document, error) {
	if !s.take(s.stored) {
		return catalog.Document{}, errOverloaded
	}
	defer func() { <-s.stored }()
	return s.Catalog.Load(ctx, id)
}

// maxPageBytes is the size of the products of a page beyond which it ends early, in bytes. pageMemory is reserved for a
// page: the last product may exceed that size, and the size of products is an estimate.
const (
	maxPageBytes = 1 << 20
	pageMemory   = maxPageBytes + maxPageBytes/4
)

func (s *Server) listProducts(ctx context.Context, c *fiber.Ctx) error {
	q, err := parseQuery(c.Context().QueryArgs())
	if err != nil {
		return err
	}
	q.MaxBytes = maxPageBytes
	if err := s.reserve(c.Context(), pageMemory, false); err != nil { // before the page is in memory
		return err
	}
	page, err := s.Catalog.List(ctx, q)
	if f := fault.From(err); f != nil && f.Kind == fault.Invalid && len(f.Fields) > 0 {
		return queryFields(f.Fields)
	}
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
	seen, outside := s.precondition(c)
	patch, err := decodePatch(body, outside)
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
	return s.sendProduct(c, fiber.StatusOK, p)
}

// precondition returns the revisions in the request's If-Match, and the errors of header and query string.
func (s *Server) precondition(c *fiber.Ctx) (seen catalog.Revisions, outside fieldErrors) {
	outside = wrongParams(c)
	seen, wrong := s.Encoder.revisions(&c.Request().Header)
	if wrong != nil {
		outside = append(outside, *wrong)
	}
	return seen, outside
}

// decodePatch reads the body of PATCH /products/:id. The error lists all wrong fields, and those outside the body.
func decodePatch(body []byte, outside fieldErrors) (catalog.ProductPatch, error) {
	r, err := newFieldReader(body, outside)
	if err != nil {
		return catalog.ProductPatch{}, err
	}
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
	seen, outside := s.precondition(c)
	if err := append(wrongBody(c), outside...).orNil(); err != nil {
		return err
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
	key, outside := requestKey(c)
	if err := checkEmpty(c, outside); err != nil {
		return err
	}
	id, err := productID(c)
	if err != nil {
		return err
	}
	number, _ := parseID(c.Params("image_id")) // 0, if it is invalid, is no image's id; a missing product is reported first
	image := catalog.ImageID(number)
	if key != "" {
		return s.reprocessOnce(ctx, c, id, image, key)
	}
	p, err := s.Catalog.Reprocess(ctx, id, image, stateOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("reprocess image: %w", err)
	}
	return s.sendProduct(c, fiber.StatusAccepted, p)
}

// reprocessOnce is reprocessImage for a request with an Idempotency-Key.
func (s *Server) reprocessOnce(ctx context.Context, c *fiber.Ctx, id catalog.ProductID, image catalog.ImageID, key string,
) error {
	digest, err := fingerprint("POST /products/:id/images/:image_id/reprocess", []int64{int64(id), int64(image)})
	if err != nil {
		return err
	}
	owned := catalog.IdempotencyKey{Principal: principalProduct + id.String(), Key: key, Fingerprint: digest}
	saved, replayed, err := s.Catalog.ReprocessOnce(ctx, id, image, owned, saving(s.accepted), stateOf(c.Context()).traceparent)
	return sendOnce(c, "reprocess image once", saved, replayed, err)
}

// accepted returns the response to a request whose effect is still to come.
func (s *Server) accepted(p catalog.Product) (response, error) {
	return s.productResponse(fiber.StatusAccepted, p)
}
