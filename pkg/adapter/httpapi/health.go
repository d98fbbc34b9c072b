package httpapi

import (
	"context"

	"github.com/gofiber/fiber/v2"

	"vitrine.io/pkg/foundation/fault"
)

// healthz reports that the process is alive.
func (s *Server) healthz(_ context.Context, c *fiber.Ctx) error {
	return sendStatus(c, `{"status":"ok"}`)
}

// readyz reports whether this server should get requests.
func (s *Server) readyz(ctx context.Context, c *fiber.Ctx) error {
	if s.draining.Load() {
		return &httpError{codeShuttingDown, "this server is shutting down"}
	}
	if err := s.Ready(ctx); err != nil {
		detail := "a service that this server needs does not answer"
		if f := fault.From(err); f != nil {
			detail = f.Detail
		}
		return fault.Wrap(err, fault.Unavailable, codeNotReady, detail)
	}
	return sendStatus(c, `{"status":"ready"}`)
}

func sendStatus(c *fiber.Ctx, body string) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.SendString(body)
}
