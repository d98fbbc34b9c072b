package catalog

import (
	"slices"
	"strconv"
	"time"

	"github.com/shopspring/decimal"
)

// ProductID names a product. Zero is no product.
type ProductID int64

// String returns the id in decimal, as URLs and Kafka keys have it.
func (id ProductID) String() string { return strconv.FormatInt(int64(id), 10) }

// Product is a product and its pictures.
type Product struct {
	ID          ProductID
	UserID      UserID
	Name        string
	Description string
	Price       decimal.Decimal
	ImageURLs   []string // product_images: as posted, in the client's order, duplicates kept
	Compressed  []string // compressed_product_images: the default rendition's object key of each picture that has one
	Images      []Image  // by position, one for each of ImageURLs
	Version     int64    // grows by one with every visible change
	Revision    int64    // grows by one with every change that a client made to what it had said
	Deleted     bool     // then only ID and Version mean anything
	CreatedAt   time.Time
	UpdatedAt   time.Time // of Version
}

// ImageStatus is the state of a product's pictures taken together.
type ImageStatus string

// The states of all pictures together.
const (
	AllPending ImageStatus = "pending" // at least one is pending
	AllReady   ImageStatus = "ready"   // every one is ready, or there is none
	AllFailed  ImageStatus = "failed"  // every one has failed
	Partial    ImageStatus = "partial" // some are ready, some have failed
)

// ImageStatus returns the state of the product's pictures taken together.
func (p Product) ImageStatus() ImageStatus {
	var ready, failed int
	for _, img := range p.Images {
		switch img.Status {
		case Pending:
			return AllPending
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

// image returns the picture with that id, or nil.
func (p *Product) image(id ImageID) *Image {
	i := slices.IndexFunc(p.Images, func(img Image) bool { return img.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Images[i]
}

// CompressedKeys returns what Compressed has to be: the default rendition's key of each picture that has one, in the
// pictures' order.
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
