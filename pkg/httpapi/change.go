package httpapi

import (
	"context"
	"fmt"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/catalog"
)

// patchProduct is a JSON merge patch (RFC 7396): what is there is changed, what is null goes back to nothing, what is absent
// stays.
func (s *Server) patchProduct(ctx context.Context, c *fiber.Ctx) error {
	body, err := bodyOf(c, mimeMergePatch, fiber.MIMEApplicationJSON)
	if err != nil {
		c.Set(headerAcceptPatch, mimeMergePatch+", "+fiber.MIMEApplicationJSON)
		return err
	}
	seen, wrongHeader := s.Encoder.revisions(&c.Request().Header)
	patch, err := decodePatch(body, wrongHeader)
	if err != nil {
		return err
	}
	id, ok := parseID(c.Params("id"))
	if !ok {
		return errNoProduct
	}
	p, err := s.Catalog.Patch(ctx, catalog.ProductID(id), patch, seen, exchangeOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("patch product: %w", err)
	}
	return s.sendProduct(c, p)
}

func (s *Server) deleteProduct(ctx context.Context, c *fiber.Ctx) error {
	if err := noBody(c); err != nil {
		return err
	}
	seen, wrongHeader := s.Encoder.revisions(&c.Request().Header)
	if wrongHeader != nil {
		return fieldErrors{*wrongHeader}
	}
	id, ok := parseID(c.Params("id"))
	if !ok {
		return errNoProduct
	}
	if err := s.Catalog.Delete(ctx, catalog.ProductID(id), seen, exchangeOf(c.Context()).traceparent); err != nil {
		return fmt.Errorf("delete product: %w", err)
	}
	c.Status(fiber.StatusNoContent)
	return nil
}

// reprocessImage asks for a picture anew. The answer comes before anything is done about it.
func (s *Server) reprocessImage(ctx context.Context, c *fiber.Ctx) error {
	if err := noBody(c); err != nil {
		return err
	}
	id, ok := parseID(c.Params("id"))
	if !ok {
		return errNoProduct
	}
	image, _ := parseID(c.Params("image_id")) // what is no id is no picture's, but whether there is a product comes first
	p, err := s.Catalog.Reprocess(ctx, catalog.ProductID(id), catalog.ImageID(image), exchangeOf(c.Context()).traceparent)
	if err != nil {
		return fmt.Errorf("reprocess picture: %w", err)
	}
	return s.sendProduct(c.Status(fiber.StatusAccepted), p)
}

// sendProduct answers a product as GET would.
func (s *Server) sendProduct(c *fiber.Ctx, p catalog.Product) error {
	body, etag, err := s.Encoder.Encode(p)
	if err != nil {
		return fmt.Errorf("encode product: %w", err)
	}
	c.Set(fiber.HeaderETag, etag)
	return sendJSON(c, body)
}

// noBody refuses a body where none is taken: who sends one expects it to matter.
func noBody(c *fiber.Ctx) error {
	if len(c.Request().Body()) == 0 {
		return nil
	}
	return fieldErrors{{Code: "unexpected", Detail: "this request takes no body"}}
}

// decodePatch reads the body of PATCH /products/:id. All wrong fields are told at once, a wrong header with them.
func decodePatch(body []byte, wrongHeader *fieldError) (catalog.ProductPatch, error) {
	o, err := parseObject(body)
	if err != nil {
		return catalog.ProductPatch{}, err
	}
	o.note(wrongHeader)
	var patch catalog.ProductPatch
	switch name := "product_name"; {
	case o.null(name):
		o.refuse(pointer(name), "required", "a product has a name")
	case o.has(name):
		patch.Name = new(o.text(name))
	}
	switch name := "product_description"; {
	case o.null(name):
		patch.Description = new("")
	case o.has(name):
		patch.Description = new(o.text(name))
	}
	switch name := "product_price"; {
	case o.null(name):
		o.refuse(pointer(name), "required", "a product has a price")
	case o.has(name):
		if price, ok := o.price(name); ok {
			patch.Price = &price
		}
	}
	switch name := "product_images"; {
	case o.null(name):
		patch.ImageURLs = new([]string{})
	case o.has(name):
		patch.ImageURLs = new(o.texts(name))
	}
	o.refuseReadOnly()
	o.refuseRest()
	return patch, o.verdict(catalog.CheckPatch(patch))
}

// refuseReadOnly notes the fields of a product that no client can change: who sends a whole product back learns which to
// leave out.
func (o *object) refuseReadOnly() {
	for _, name := range []string{
		"id", "user_id", "compressed_product_images", "images", "image_status", "version", "revision", "created_at", "updated_at",
	} {
		if _, there := o.take(name); there {
			o.refuse(pointer(name), "read_only", "cannot be changed; leave it out")
		}
	}
}
