package imaging

import (
	"encoding/base64"
	"fmt"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/thumbhash"
)

// placeholder returns the ThumbHash of src, whose size is given, in base64.
func placeholder(src *vips.ImageRef, of size) (string, error) {
	longer := float64(max(of.width, of.height))
	small := of.times(min(1, thumbhash.MaxSide/longer))
	img, err := scale(src, small)
	if err != nil {
		return "", fmt.Errorf("scale placeholder: %w", err)
	}
	defer img.Close()
	if err := img.AddAlpha(); err != nil {
		return "", fmt.Errorf("add alpha: %w", err)
	}
	rgba, err := img.ToBytes()
	if err != nil {
		return "", fmt.Errorf("read pixels: %w", err)
	}
	hash, err := thumbhash.Hash(thumbhash.Image{Width: small.width, Height: small.height, RGBA: rgba})
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	return base64.StdEncoding.EncodeToString(hash), nil
}
