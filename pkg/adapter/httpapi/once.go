package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/domain/catalog"
)

// The owners of keys that belong to no user. There is no authentication yet, so a key belongs to what the request changes:
// the products of a user, one product, the list of users, or the images of this installation. A user's id is the owner of
// that user's keys, so none of these is a number.
const (
	principalUsers   = "users"
	principalProduct = "product " // and its id
	principalImages  = "images"
)

// sendOnce sends what the catalogue has returned for a request with a key. verb names the request in errors.
func sendOnce(c *fiber.Ctx, verb string, saved catalog.SavedResponse, replayed bool, err error) error {
	r, err := firstResponse(verb, saved, replayed, err)
	if err != nil {
		return err
	}
	r.send(c.Response())
	return nil
}

// firstResponse decodes the response to the first request with a key. It gives the errors of keys their form in HTTP.
func firstResponse(verb string, saved catalog.SavedResponse, replayed bool, err error) (response, error) {
	switch {
	case errors.Is(err, catalog.ErrKeyReused):
		return response{}, fieldErrors{{inHeader, headerKey, "reused", "the key was used for another request; use a new one"}}
	case errors.Is(err, catalog.ErrInProgress):
		return response{}, &httpError{
			codeInProgress, "a request with this Idempotency-Key is in progress; repeat it for the response",
		}
	case err != nil:
		return response{}, fmt.Errorf("%s: %w", verb, err)
	}
	r, err := restore(saved)
	if err == nil && replayed {
		r.Headers[headerReplayed] = "true"
	}
	return r, err
}

// saving returns the function that makes the response to be saved from the one that respond makes.
func saving[T any](respond func(T) (response, error)) func(T) (catalog.SavedResponse, error) {
	return func(of T) (catalog.SavedResponse, error) {
		r, err := respond(of)
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	}
}

// fingerprint returns a digest of a request: of its route, and of its content in a struct whose encoding is the same for all
// requests with the same meaning. Keys are kept for a day, so the next release must compute the same digest.
func fingerprint(route string, content any) (string, error) {
	canonical, err := encodeJSON(content)
	if err != nil {
		return "", fmt.Errorf("encode content: %w", err)
	}
	sum := sha256.Sum256(append([]byte(route+"\n"), canonical...))
	return hex.EncodeToString(sum[:]), nil
}
