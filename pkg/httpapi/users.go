package httpapi

import (
	"context"
	"fmt"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

// userDTO is a user as the API answers it.
type userDTO struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Email     string `json:"email"`
	CreatedAt string `json:"created_at"`
}

func toUserDTO(u catalog.User) userDTO {
	return userDTO{ID: int64(u.ID), Name: u.Name, Email: u.Email, CreatedAt: toTime(u.CreatedAt)}
}

func (s *Server) createUser(ctx context.Context, c *fiber.Ctx) error {
	body, err := jsonBody(c)
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
	body, err := encodeJSON(toUserDTO(u))
	if err != nil {
		return fmt.Errorf("encode user: %w", err)
	}
	return sendJSON(c, body)
}

// decodeUser reads the body of POST /users. All wrong fields are told at once.
func decodeUser(body []byte) (name, email string, err error) {
	o, err := parseObject(body)
	if err != nil {
		return "", "", err
	}
	name, email = o.text("name"), o.text("email")
	o.refuseRest()
	return name, email, o.verdict(catalog.CheckUser(name, email))
}

// parseID reads an id of a path: a positive whole number as we write it. Anything else names nothing.
func parseID(text string) (int64, bool) {
	if text == "" || text[0] < '1' || text[0] > '9' {
		return 0, false // also "+1" and "01": one thing has one URL
	}
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil
}

// jsonBody returns the request's body if it claims to be JSON. It is valid only until the handler returns.
func jsonBody(c *fiber.Ctx) ([]byte, error) {
	return bodyOf(c, fiber.MIMEApplicationJSON)
}

// bodyOf returns the request's body if it claims to be of one of the types. It is valid only until the handler returns.
func bodyOf(c *fiber.Ctx, types ...string) ([]byte, error) {
	if reason := notOf(&c.Request().Header, types...); reason != "" {
		return nil, &httpError{codeMediaType, reason}
	}
	return c.Request().Body(), nil
}

// sendJSON answers body, which must not change any more.
func sendJSON(c *fiber.Ctx, body []byte) error {
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Set(fiber.HeaderCacheControl, revalidate)
	c.Response().SetBodyRaw(body)
	return nil
}
