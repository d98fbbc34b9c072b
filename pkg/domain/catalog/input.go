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

// The limits of what a client may say. Lengths of text are in characters, of URLs in bytes.
const (
	MaxNameChars        = 200
	MaxDescriptionChars = 10_000
	MaxEmailChars       = 254 // RFC 5321, 4.5.3.1.3
	MaxImages           = 20
	MaxURLBytes         = 2048
	PriceDecimals       = 2
)

// MaxPrice is the highest price that numeric(12,2) holds.
func MaxPrice() decimal.Decimal { return decimal.New(999_999_999_999, -PriceDecimals) }

// NewProductInput is what a client says of a product.
type NewProductInput struct {
	UserID      UserID
	Name        string
	Description string
	Price       decimal.Decimal
	PriceSet    bool // a price of zero is a price
	ImageURLs   []string
}

// CheckProduct returns every wrong field. Whether the user exists only the store knows.
func CheckProduct(in NewProductInput) []fault.Field {
	var c checker
	if in.UserID < 1 {
		c.add("user_id", "required", "the number of an existing user")
	}
	c.text("product_name", in.Name, 1, MaxNameChars)
	c.text("product_description", in.Description, 0, MaxDescriptionChars)
	c.price("product_price", in.Price, in.PriceSet)
	c.imageURLs("product_images", in.ImageURLs)
	return c.wrong
}

// CheckUser returns every wrong field.
func CheckUser(name, email string) []fault.Field {
	var c checker
	c.text("name", name, 1, MaxNameChars)
	c.email("email", email)
	return c.wrong
}

// NewProduct returns the product that in describes, its pictures pending and idle. fault.Invalid lists every wrong field.
func NewProduct(in NewProductInput) (Product, error) {
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

// NewUser returns the user that name and email describe. fault.Invalid lists every wrong field.
func NewUser(name, email string) (User, error) {
	if err := fault.InvalidFields(CheckUser(name, email)); err != nil {
		return User{}, err
	}
	return User{Name: name, Email: email}, nil
}

// checker gathers wrong fields.
type checker struct{ wrong []fault.Field }

func (c *checker) add(path, code, detail string) {
	c.wrong = append(c.wrong, fault.Field{Path: path, Code: code, Detail: detail})
}

func (c *checker) text(path, value string, least, most int) {
	letters := utf8.RuneCountInString(value)
	switch {
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		c.add(path, "invalid_text", "not valid text") // Postgres stores neither
	case least > 0 && strings.TrimSpace(value) == "":
		c.add(path, "required", "must not be empty")
	case letters > most:
		c.add(path, "too_long", "at most "+strconv.Itoa(most)+" characters")
	}
}

func (c *checker) email(path, value string) {
	if value == "" {
		c.add(path, "required", "must not be empty")
		return
	}
	if utf8.RuneCountInString(value) > MaxEmailChars {
		c.add(path, "too_long", "at most "+strconv.Itoa(MaxEmailChars)+" characters")
		return
	}
	a, err := mail.ParseAddress(value)
	if err != nil || a.Name != "" || a.Address != value || hasInvalidRune(value, unicode.IsControl) {
		c.add(path, "invalid_email", "not an e-mail address")
	}
}

func (c *checker) price(path string, value decimal.Decimal, set bool) {
	switch {
	case !set:
		c.add(path, "required", "must be given")
	case value.IsNegative():
		c.add(path, "out_of_range", "must not be below zero")
	case value.GreaterThan(MaxPrice()):
		c.add(path, "out_of_range", "must not be over "+MaxPrice().StringFixed(PriceDecimals))
	case !value.Equal(value.Truncate(PriceDecimals)):
		c.add(path, "too_precise", "at most two decimals")
	}
}

func (c *checker) imageURLs(path string, urls []string) {
	if len(urls) > MaxImages {
		c.add(path, "too_many", "at most "+strconv.Itoa(MaxImages)+" pictures")
		return
	}
	for i, raw := range urls {
		c.imageURL(path+"["+strconv.Itoa(i)+"]", raw)
	}
}

// imageURL checks a URL's form. Where it leads is the worker's to judge, when it dials.
func (c *checker) imageURL(path, raw string) {
	switch {
	case raw == "":
		c.add(path, "required", "must not be empty")
		return
	case len(raw) > MaxURLBytes:
		c.add(path, "too_long", "at most "+strconv.Itoa(MaxURLBytes)+" bytes")
		return
	case hasInvalidRune(raw, unicode.IsControl) || hasInvalidRune(raw, unicode.IsSpace):
		c.add(path, "invalid_url", "must not hold spaces or control characters")
		return
	}
	u, err := url.Parse(raw)
	if err != nil {
		c.add(path, "invalid_url", "not a URL")
		return
	}
	switch {
	case !strings.EqualFold(u.Scheme, "http") && !strings.EqualFold(u.Scheme, "https"):
		c.add(path, "invalid_scheme", "must begin with http:// or https://")
	case u.User != nil:
		c.add(path, "userinfo", "must not hold a user name or password")
	case u.Hostname() == "":
		c.add(path, "invalid_url", "must name a host")
	case !validPort(u.Port()):
		c.add(path, "invalid_url", "the port must be a number from 1 to 65535")
	}
}

// hasInvalidRune reports whether text is not UTF-8 or has a character that is strange.
func hasInvalidRune(text string, strange func(rune) bool) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, strange)
}

func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 1 && n <= 65535
}
