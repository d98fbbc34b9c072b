package httpapi

import (
	"context"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// userDTO is the JSON form of a user.
type userDTO struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Email     string `json:"email"`
	CreatedAt string `json:"created_at"`
}

func (s *Server) createUser(ctx context.Context, c *fiber.Ctx) error {
	body, err := requestBody(c, fiber.MIMEApplicationJSON)
	if err != nil {
		return err
	}
	key, outside := requestKey(c)
	name, email, err := decodeUser(body, outside)
	if err != nil {
		return err
	}
	if key != "" {
		return s.createUserOnce(ctx, c, name, email, key)
	}
	u, err := s.Catalog.CreateUser(ctx, name, email)
	if err != nil {
		return fmt.Errorf("create user: %w", err)
	}
	r, err := createdUser(u)
	if err != nil {
		return err
	}
	r.send(c.Response())
	return nil
}

// createUserOnce is createUser for a request with an Idempotency-Key.
func (s *Server) createUserOnce(ctx context.Context, c *fiber.Ctx, name, email, key string) error {
	digest, err := fingerprint("POST /users", []string{name, email})
	if err != nil {
		return err
	}
	owned := catalog.IdempotencyKey{Principal: principalUsers, Key: key, Fingerprint: digest}
	saved, replayed, err := s.Catalog.CreateUserOnce(ctx, name, email, owned, saving(createdUser))
	return sendOnce(c, "create user once", saved, replayed, err)
}

func (s *Server) getUser(ctx context.Context, c *fiber.Ctx) error {
	id, ok := parseID(c.Params("id"))
	if !ok {
		return fault.New(fault.NotFound, "user_not_found", "there is no such user")
	}
	u, err := s.Catalog.User(ctx, catalog.UserID(id))
	if err != nil {
		return fmt.Errorf("get user: %w", err)
	}
	body, err := encodeUser(u)
	if err != nil {
		return err
	}
	return sendJSON(c, body)
}

// createdUser returns the response to a POST that created u, with a key or without.
func createdUser(u catalog.User) (response, error) {
	body, err := encodeUser(u)
	if err != nil {
		return response{}, err
	}
	return response{Status: fiber.StatusCreated, Body: body, Headers: map[string]string{
		fiber.HeaderLocation:     "/users/" + strconv.FormatInt(int64(u.ID), 10),
		fiber.HeaderContentType:  fiber.MIMEApplicationJSON,
		fiber.HeaderCacheControl: revalidate,
	}}, nil
}

func encodeUser(u catalog.User) ([]byte, error) {
	body, err := encodeJSON(userDTO{ID: int64(u.ID), Name: u.Name, Email: u.Email, CreatedAt: toTime(u.CreatedAt)})
	if err != nil {
		return nil, fmt.Errorf("encode user: %w", err)
	}
	return body, nil
}

// decodeUser reads the body of POST /users, and normalizes its texts. The error lists all wrong fields, and those outside
// the body.
func decodeUser(body []byte, outside fieldErrors) (name, email string, err error) {
	r, err := newFieldReader(body, outside)
	if err != nil {
		return "", "", err
	}
	r.ignoreNull("name", "email")
	name, email = catalog.NormalizedUser(r.text("name"), r.text("email"))
	return name, email, r.finish(catalog.CheckUser(name, email))
}
