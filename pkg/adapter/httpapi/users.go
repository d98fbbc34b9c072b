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
	name, email, err := decodeUser(body)
	if err != nil {
		return err
	}
	u, err := s.Catalog.CreateUser(ctx, name, email)
	if err != nil {
		return fmt.Errorf("create user: %w", err)
	}
	c.Location("/users/" + strconv.FormatInt(int64(u.ID), 10))
	return sendUser(c.Status(fiber.StatusCreated), u)
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
	return sendUser(c, u)
}

func sendUser(c *fiber.Ctx, u catalog.User) error {
	body, err := encodeJSON(userDTO{ID: int64(u.ID), Name: u.Name, Email: u.Email, CreatedAt: toTime(u.CreatedAt)})
	if err != nil {
		return fmt.Errorf("encode user: %w", err)
	}
	return sendJSON(c, body)
}

// decodeUser reads the body of POST /users. The error lists all wrong fields.
func decodeUser(body []byte) (name, email string, err error) {
	r, err := newFieldReader(body)
	if err != nil {
		return "", "", err
	}
	name, email = r.text("name"), r.text("email")
	return name, email, r.finish(catalog.CheckUser(name, email))
}
