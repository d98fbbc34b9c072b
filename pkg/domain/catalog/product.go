package catalog

import (
	"slices"
	"strconv"
	"time"

	"github.com/shopspring/decimal"
)

// ProductID identifies a product. Zero is no product.
type ProductID int64

// String returns the id in decimal, as URLs and Kafka keys have it.
func (id ProductID) String() string { return strconv.FormatInt(int64(id), 10) }

// Product is a product with its images.
type Product struct {
	ID          ProductID
	UserID      UserID
	Name        string
	Description string
	Price       decimal.Decimal
	ImageURLs   []string // product_images: as posted, in the client's order, with duplicates
	Compressed  []string // compressed_product_images: the object key of each image's default rendition, see CompressedKeys
	Images      []Image  // by position, one for each of ImageURLs
	Version     int64    // grows by one with every visible change
	Revision    int64    // grows by one with every change that a client makes to its own fields
	Deleted     bool     // if set, only ID and Version are valid
	CreatedAt   time.Time
	UpdatedAt   time.Time // when Version was assigned
}

// Sizes of a product in JSON, without its texts, in bytes. They are estimates of what the API sends.
const (
	productSize   = 400
	imageSize     = 350
	renditionSize = 200
)

// Size returns about how many bytes the product has in JSON.
func (p Product) Size() int {
	size := productSize + len(p.Name) + len(p.Description)
	for _, texts := range [][]string{p.ImageURLs, p.Compressed} {
		for _, text := range texts {
			size += len(text)
		}
	}
	for _, img := range p.Images {
		size += imageSize + len(img.SourceURL) + len(img.ErrorDetail) + len(img.Placeholder)
		for _, r := range img.Renditions {
			size += renditionSize + len(r.Key)
		}
	}
	return size
}

// ImageStatus summarises the states of a product's images.
type ImageStatus string

// The values of ImageStatus.
const (
	AnyPending ImageStatus = "pending" // at least one is pending
	AllReady   ImageStatus = "ready"   // every one is ready, or there is none
	AllFailed  ImageStatus = "failed"  // every one has failed
	Partial    ImageStatus = "partial" // some are ready, some have failed
)

// ImageStatus returns the summary of the images' states.
func (p Product) ImageStatus() ImageStatus {
	var ready, failed int
	for _, img := range p.Images {
		switch img.Status {
		case Pending:
			return AnyPending
		case Ready:
			ready++
		case Failed:
			failed++
		}
	}
	switch {
	case failed == 0:
		return AllReady
	case ready == 0:
		return AllFailed
	default:
		return Partial
	}
}

// image returns the image with that id, or nil.
func (p *Product) image(id ImageID) *Image {
	i := slices.IndexFunc(p.Images, func(img Image) bool { return img.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Images[i]
}

// CompressedKeys returns the value that Compressed must have: the object key of the default rendition of each image that has
// one, by position.
func (p Product) CompressedKeys() []string {
	keys := make([]string, 0, len(p.Images))
	for _, img := range p.Images {
		for _, r := range img.Renditions {
			if r.Default {
				keys = append(keys, r.Key)
			}
		}
	}
	return keys
}
