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

	params     []string // in the query string; every other one is refused
	decodes    bool     // the handler itself refuses other parameters, together with what else is wrong with the request
	repeatable bool     // a repetition has no further effect
	cached     bool     // it asks the database only if the cache does not have the response
}

// routes lists all routes. HEAD works wherever GET does. docs/api.md has a section for each.
func (s *Server) routes() []route {
	return []route{
		{method: fiber.MethodPost, path: "/users", handle: s.createUser, decodes: true},
		{method: fiber.MethodGet, path: "/users/:id", handle: s.getUser},
		{method: fiber.MethodPost, path: "/products", handle: s.createProduct, decodes: true},
		{method: fiber.MethodGet, path: "/products/:id", handle: s.getProduct, cached: true},
		{method: fiber.MethodGet, path: "/products", handle: s.listProducts, params: listParams(), decodes: true},
		{method: fiber.MethodPatch, path: "/products/:id", handle: s.patchProduct, decodes: true, repeatable: true},
		{method: fiber.MethodDelete, path: "/products/:id", handle: s.deleteProduct, decodes: true, repeatable: true},
		{
			method: fiber.MethodPost, path: "/products/:id/images/:image_id/reprocess", handle: s.reprocessImage,
			decodes: true, repeatable: true,
		},
		{method: fiber.MethodGet, path: "/healthz", handle: s.healthz, quiet: true},
		{method: fiber.MethodGet, path: "/readyz", handle: s.readyz, quiet: true},
	}
}
