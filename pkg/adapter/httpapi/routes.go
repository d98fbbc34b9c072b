package httpapi

import (
	"context"

	"github.com/gofiber/fiber/v2"
)

// noRoute is the route template of a request that matches no route.
const noRoute = "(none)"

// route is one method of one path.
type route struct {
	method string
	path   string
	handle func(ctx context.Context, c *fiber.Ctx) error
	quiet  bool // a probe: logged at debug level, and never rejected because of MaxInFlight

	repeatable bool // a repetition has no further effect
}

// routes lists all routes. HEAD works wherever GET does. docs/api.md has a section for each.
func (s *Server) routes() []route {
	return []route{
		{method: fiber.MethodPost, path: "/users", handle: s.createUser},
		{method: fiber.MethodGet, path: "/users/:id", handle: s.getUser},
		{method: fiber.MethodPost, path: "/products", handle: s.createProduct},
		{method: fiber.MethodGet, path: "/products/:id", handle: s.getProduct},
		{method: fiber.MethodGet, path: "/products", handle: s.listProducts},
		{method: fiber.MethodPatch, path: "/products/:id", handle: s.patchProduct, repeatable: true},
		{method: fiber.MethodDelete, path: "/products/:id", handle: s.deleteProduct, repeatable: true},
		{
			method: fiber.MethodPost, path: "/products/:id/images/:image_id/reprocess", handle: s.reprocessImage,
			repeatable: true,
		},
		{method: fiber.MethodGet, path: "/healthz", handle: s.healthz, quiet: true},
		{method: fiber.MethodGet, path: "/readyz", handle: s.readyz, quiet: true},
	}
}
