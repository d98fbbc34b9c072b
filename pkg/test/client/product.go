package client

import "time"

// NewProduct is the body of POST /products.
type NewProduct struct {
	UserID      int64    `json:"user_id"`
	Name        string   `json:"product_name"`
	Description string   `json:"product_description,omitempty"`
	Price       string   `json:"product_price"`
	Sources     []string `json:"product_images"` // URLs of the source images; nil is sent as null
}

// Product is a product as the API represents it.
type Product struct {
	ID          int64     `json:"id"`
	UserID      int64     `json:"user_id"`
	Name        string    `json:"product_name"`
	Description string    `json:"product_description"`
	Price       string    `json:"product_price"`
	Sources     []string  `json:"product_images"`
	Compressed  []string  `json:"compressed_product_images"`
	Images      []Image   `json:"images"`
	ImageStatus string    `json:"image_status"`
	Version     int64     `json:"version"`
	Revision    int64     `json:"revision"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Settled reports whether no image of the product is pending.
func (p Product) Settled() bool { return p.ImageStatus != "pending" }

// Image is one image of a [Product].
type Image struct {
	ID         int64       `json:"id"`
	SourceURL  string      `json:"source_url"`
	Status     string      `json:"status"`
	Attempts   int         `json:"attempts"`
	Error      *ImageError `json:"error"` // nil unless the image has failed
	Width      int         `json:"width"` // of the source, in pixels
	Height     int         `json:"height"`
	Renditions []Rendition `json:"renditions"`
}

// ErrorCode returns the code of the image's error, or "".
func (i Image) ErrorCode() string {
	if i.Error == nil {
		return ""
	}
	return i.Error.Code
}

// ImageError is why an [Image] has failed.
type ImageError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Rendition is one file rendered from an [Image].
type Rendition struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Width  int    `json:"width"` // in pixels
	Height int    `json:"height"`
	Bytes  int    `json:"bytes"`
	URL    string `json:"url"`
}
