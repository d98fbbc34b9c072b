package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/catalog"
)

// createOnce is createProduct for a request with an Idempotency-Key: however often it comes, it makes one product, and is
// answered each time what it was answered first.
func (s *Server) createOnce(ctx context.Context, c *fiber.Ctx, in catalog.NewProductInput, key string) error {
	x := exchangeOf(c.Context())
	x.repeatable = true
	asked, err := fingerprint(in)
	if err != nil {
		return err
	}
	// Who is asking is not known yet, so a key belongs to the user whose product it makes.
	id := catalog.IdempotencyKey{Principal: strconv.FormatInt(int64(in.UserID), 10), Key: key, Fingerprint: asked}
	respond := func(p catalog.Product) (catalog.SavedResponse, error) {
		r, err := s.created(p)
		if err != nil {
			return nil, err
		}
		return r.save()
	}
	saved, replayed, err := s.Catalog.CreateOnce(ctx, in, id, respond, x.traceparent)
	switch {
	case errors.Is(err, catalog.ErrKeyReused):
		return fieldErrors{{headerKey, "reused", "the key was used for another request; draw a new one"}}
	case errors.Is(err, catalog.ErrInProgress):
		return &httpError{codeInProgress, "a request with this Idempotency-Key is being worked on; ask again for its answer"}
	case err != nil:
		return fmt.Errorf("create product once: %w", err)
	}
	if replayed {
		c.Set(headerReplayed, "true")
	}
	r, err := restore(saved)
	if err != nil {
		return err
	}
	r.send(c.Response())
	return nil
}

// fingerprint returns a digest of what a POST /products asks for. White space, the order of fields, how a price is written
// and whether an empty field is left out do not matter. It is kept for a day: another release must compute the same.
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
