package httpapi

import (
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

const mimeMergePatch = "application/merge-patch+json" // RFC 7396

// requestBody returns the request's body if its Content-Type is one of types. It is valid only until the handler returns.
func requestBody(c *fiber.Ctx, types ...string) ([]byte, error) {
	h := &c.Request().Header
	if err := checkMediaType(string(h.ContentType()), headerLines(h, fiber.HeaderContentEncoding), types...); err != nil {
		return nil, err
	}
	return c.Request().Body(), nil
}

// checkMediaType rejects a body whose type is not in types, or whose charset is not UTF-8; the error recommends the first
// type. It also rejects a compressed body, because its size is known only after it is decompressed.
func checkMediaType(contentType string, encodings []string, types ...string) error {
	for _, encoding := range encodings {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return &httpError{codeMediaType, "send the body without a Content-Encoding"}
		}
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || !slices.Contains(types, kind) {
		return &httpError{codeMediaType, "send Content-Type: " + types[0]}
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8") {
		return &httpError{codeMediaType, "send the body in UTF-8, and as Content-Type: " + types[0]}
	}
	return nil
}

// wrongBody rejects a body where none is expected, because a client that sends one expects it to have an effect.
func wrongBody(c *fiber.Ctx) fieldErrors {
	if len(c.Request().Body()) == 0 {
		return nil
	}
	return fieldErrors{{In: inBody, Code: "unexpected", Detail: "this request must have no body"}}
}

// checkEmpty returns outside and the fields of a body that must be absent or an empty object, which some clients send with
// every POST.
func checkEmpty(c *fiber.Ctx, outside fieldErrors) error {
	if len(c.Request().Body()) == 0 {
		return outside.orNil()
	}
	body, err := requestBody(c, fiber.MIMEApplicationJSON)
	if err != nil {
		return err
	}
	r, err := newFieldReader(body, outside)
	if err != nil {
		return err
	}
	return r.finish(nil)
}

// wrongParams returns the parameters in the query string that the request's route does not have.
func wrongParams(c *fiber.Ctx) fieldErrors {
	return readParams(c.Context().QueryArgs(), stateOf(c.Context()).route.params).wrong
}

// requestKey returns a copy of the client's Idempotency-Key, "" if there is none, and the errors of header and query string.
// A request with a key may be repeated.
func requestKey(c *fiber.Ctx) (key string, outside fieldErrors) {
	outside = wrongParams(c)
	key, wrong := idempotencyKey(headerLines(&c.Request().Header, headerKey))
	if wrong != nil {
		outside = append(outside, *wrong)
	}
	if key != "" {
		stateOf(c.Context()).repeatable = true
	}
	return key, outside
}

// headerLines returns copies of the values of a header's lines.
func headerLines(h *fasthttp.RequestHeader, name string) []string {
	var lines []string
	for _, line := range h.PeekAll(name) {
		lines = append(lines, string(line))
	}
	return lines
}

// productID returns the product's id in the path, or fault.NotFound if the path has no valid id.
func productID(c *fiber.Ctx) (catalog.ProductID, error) {
	id, ok := parseID(c.Params("id"))
	if !ok {
		return 0, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	return catalog.ProductID(id), nil
}

// parseID reads an id of a path: a positive whole number in its shortest spelling. "+1" and "01" are not valid.
func parseID(text string) (int64, bool) {
	if text == "" || text[0] < '1' || text[0] > '9' {
		return 0, false
	}
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil
}
