package catalog

import (
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/fault"
)

// The limits of a client's input. Text is measured in characters, URLs in bytes.
const (
	MaxNameChars        = 200
	MaxDescriptionChars = 10_000
	MaxEmailChars       = 254 // RFC 5321, 4.5.3.1.3
	MaxImages           = 20
	MaxURLBytes         = 2048
	PriceDecimals       = 2
)

// MaxPrice returns the highest price that the column's type, numeric(12,2), can store.
func MaxPrice() decimal.Decimal { return decimal.New(999_999_999_999, -PriceDecimals) }

// NewProductInput is a client's description of a new product.
type NewProductInput struct {
	UserID      UserID
	Name        string
	Description string
	Price       decimal.Decimal
	PriceSet    bool // distinguishes a price of zero from a missing one
	ImageURLs   []string
}

// Normalized returns in with its texts as they are stored: in Unicode normalization form C, without white space at the ends.
// Lines of the description end in "\n".
func (in NewProductInput) Normalized() NewProductInput {
	in.Name, in.Description = normalize(in.Name), normalizeLines(in.Description)
	return in
}

// CheckProduct returns every wrong field of the normalized input. It does not check that the user exists: the store does.
func CheckProduct(in NewProductInput) []fault.Field {
	var c checker
	in = in.Normalized()
	switch {
	case in.UserID == 0:
		c.Add("user_id", "required", "the number of an existing user")
	case in.UserID < 0:
		c.Add("user_id", "out_of_range", "must be above zero")
	}
	c.name("product_name", in.Name)
	c.text("product_description", in.Description, MaxDescriptionChars, invalidLines)
	c.price("product_price", in.Price, in.PriceSet)
	c.imageURLs("product_images", in.ImageURLs)
	return c.Fields()
}

// CheckUser returns every wrong field of a user whose texts are normalized.
func CheckUser(name, email string) []fault.Field {
	var c checker
	name, email = NormalizedUser(name, email)
	c.name("name", name)
	c.email("email", email)
	return c.Fields()
}

// NormalizedUser returns the texts of a user as they are stored: in Unicode normalization form C, without white space at the
// ends.
func NormalizedUser(name, email string) (storedName, storedEmail string) {
	return normalize(name), normalize(email)
}

// NewProduct returns the product that in describes, normalized; its images are pending and idle. It returns a
// fault.Invalid that lists every wrong field.
func NewProduct(in NewProductInput) (Product, error) {
	in = in.Normalized()
	if err := fault.InvalidFields(CheckProduct(in)); err != nil {
		return Product{}, err
	}
	p := Product{
		UserID: in.UserID, Name: in.Name, Description: in.Description, Price: in.Price,
		ImageURLs: append([]string{}, in.ImageURLs...), Compressed: []string{}, Version: 1, Revision: 1,
	}
	for i, source := range p.ImageURLs {
		p.Images = append(p.Images, Image{Position: i, SourceURL: source, Status: Pending, JobState: Idle})
	}
	return p, nil
}

// NewUser returns the user that name and email describe, normalized. It returns a fault.Invalid that lists every wrong
// field.
func NewUser(name, email string) (User, error) {
	name, email = NormalizedUser(name, email)
	if err := fault.InvalidFields(CheckUser(name, email)); err != nil {
		return User{}, err
	}
	return User{Name: name, Email: email}, nil
}

// checker collects the wrong fields of a client's input.
type checker struct{ fault.Checker }

func (c *checker) name(path, value string) {
	if !c.text(path, value, MaxNameChars, invalidName) {
		return
	}
	c.Check(legible(value), path, "required", "must not be empty")
}

// text adds a text that is too long, or for which invalid returns a reason, and reports whether there is nothing wrong.
func (c *checker) text(path, value string, maxChars int, invalid func(string) string) bool {
	if utf8.RuneCountInString(value) > maxChars {
		c.Add(path, "too_long", "at most %d characters", maxChars)
		return false
	}
	reason := invalid(value)
	c.Check(reason == "", path, "invalid_text", "%s", reason)
	return reason == ""
}

func (c *checker) email(path, value string) {
	if value == "" {
		c.Add(path, "required", "must not be empty")
		return
	}
	if utf8.RuneCountInString(value) > MaxEmailChars {
		c.Add(path, "too_long", "at most %d characters", MaxEmailChars)
		return
	}
	a, err := mail.ParseAddress(value)
	if err != nil || a.Name != "" || a.Address != value || hasInvalidRune(value, hidden) {
		c.Add(path, "invalid_email", "not an e-mail address")
	}
}

func (c *checker) price(path string, value decimal.Decimal, set bool) {
	switch {
	case !set:
		c.Add(path, "required", "must be given")
	case value.IsNegative():
		c.Add(path, "out_of_range", "must not be below zero")
	case value.GreaterThan(MaxPrice()):
		c.Add(path, "out_of_range", "must not be over %s", MaxPrice().StringFixed(PriceDecimals))
	case !value.Equal(value.Truncate(PriceDecimals)):
		c.Add(path, "too_precise", "at most two decimals")
	}
}

func (c *checker) imageURLs(path string, urls []string) {
	if len(urls) > MaxImages {
		c.Add(path, "too_many", "at most %d images", MaxImages)
		return
	}
	for i, raw := range urls {
		c.imageURL(path+"["+strconv.Itoa(i)+"]", raw)
	}
}

// imageURL checks a URL's form only. The worker rejects forbidden addresses when it connects, after the host's name is
// resolved.
func (c *checker) imageURL(path, raw string) {
	switch {
	case raw == "":
		c.Add(path, "required", "must not be empty")
		return
	case len(raw) > MaxURLBytes:
		c.Add(path, "too_long", "at most %d bytes", MaxURLBytes)
		return
	case hasInvalidRune(raw, hidden) || hasInvalidRune(raw, unicode.IsSpace):
		c.Add(path, "invalid_url", "must not contain spaces, control characters or invisible characters")
		return
	}
	u, err := url.Parse(raw)
	if err != nil {
		c.Add(path, "invalid_url", "not a URL")
		return
	}
	switch {
	case !strings.EqualFold(u.Scheme, "http") && !strings.EqualFold(u.Scheme, "https"):
		c.Add(path, "invalid_scheme", "must begin with http:// or https://")
	case u.User != nil:
		c.Add(path, "userinfo", "must not contain a user name or password")
	case u.Hostname() == "":
		c.Add(path, "invalid_url", "must name a host")
	case !validPort(u.Port()):
		c.Add(path, "invalid_url", "the port must be a number from 1 to 65535")
	}
}

// hasInvalidRune reports whether text is not UTF-8, or has a character for which invalid returns true.
func hasInvalidRune(text string, invalid func(rune) bool) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, invalid)
}

func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 1 && n <= 65535
}
