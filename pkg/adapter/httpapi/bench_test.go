package httpapi_test

import (
	"context"
	"io"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
)

// hits is a catalogue whose Get always succeeds.
type hits struct {
	*fakeCatalog
	doc catalog.Document
}

func (h hits) Cached(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return h.doc, true, nil
}

func BenchmarkGetProduct(b *testing.B) {
	body, etag, err := httpapi.NewEncoder(publicURL, 0).Encode(ready())
	if err != nil {
		b.Fatal(err)
	}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zap.InfoLevel))
	p := newDeps(&fakeCatalog{}, log, prometheus.NewRegistry())
	p.Catalog = hits{doc: catalog.Document{Version: 1, ETag: etag, Body: body}}
	p.NewID = uuid.NewString
	bare := fiber.New(fiber.Config{DisableStartupMessage: true})
	bare.Get("/products/:id", func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Send(body)
	})
	for name, handle := range map[string]fasthttp.RequestHandler{
		"server": httpapi.New(p, testConfig()).Handler(),
		"bare":   bare.Handler(),
	} {
		b.Run(name, func(b *testing.B) {
			var ctx fasthttp.RequestCtx
			ctx.Request.SetRequestURI("/products/7")
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				handle(&ctx)
			}
			if got := ctx.Response.StatusCode(); got != 200 {
				b.Fatalf("status %d", got)
			}
		})
	}
}
