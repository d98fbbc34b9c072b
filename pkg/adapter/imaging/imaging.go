package imaging

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Start starts libvips, once per process: libvips cannot be started again after [Shutdown]. Its operation cache is off,
// since no image is processed twice. It returns an error if libvips does not start, or if govips has no field with the
// known name for its image.
func Start(cfg Config) error {
	vips.LoggingSettings(func(domain string, _ vips.LogLevel, message string) {
		if cfg.Warn != nil {
			cfg.Warn(domain + ": " + message)
		}
	}, vips.LogLevelWarning)
	if err := vips.Startup(&vips.Config{ConcurrencyLevel: max(1, cfg.Threads)}); err != nil {
		return fmt.Errorf("start libvips: %w", withoutStack(err))
	}
	loadPlugins()
	if !vipsImage(new(vips.ImageRef)).IsValid() {
		return fmt.Errorf("govips %s keeps its image in a field that materialise does not know", vips.Version)
	}
	return nil
}

// loadPlugins makes libheif load its codecs, which are separate files in some distributions. libheif would load them with
// the first image, but by then the process is in a sandbox and cannot open files. libheif has no function for this, so
// loadPlugins passes an incomplete image to it.
func loadPlugins() {
	img, err := vips.LoadImageFromBuffer([]byte("\x00\x00\x00\x14ftypavif\x00\x00\x00\x00avif"), vips.NewImportParams())
	if err == nil { // not expected: the image has no pixels
		img.Close()
	}
}

// Shutdown stops libvips; it cannot be started again.
func Shutdown() { vips.Shutdown() }

// Version returns the version of libvips.
func Version() string { return vips.Version }

// Render returns the outputs that spec requests, in its order, and lists those that were dropped. Its errors are
// *media.Failure. It must not run concurrently in one process: libvips keeps one buffer of error texts per process.
func Render(source []byte, spec pipeline.Spec) (media.Rendered, error) {
	defer runtime.KeepAlive(source) // libvips reads it until the last image is closed
	if err := checkSpec(spec); err != nil {
		return media.Rendered{}, err
	}
	format, err := detectFormat(source, spec.Accept)
	if err != nil {
		return media.Rendered{}, err
	}
	head, err := readHeader(source, format, spec.Limits.MaxPixels)
	if err != nil {
		return media.Rendered{}, err
	}
	stages := planStages(spec.Renditions, head.upright)
	base, err := decode(source, head, stages[0].size)
	if err != nil {
		return media.Rendered{}, err
	}
	enc := newEncoder(newOriginal(source, format, head.upright), spec, base.HasAlpha())
	placeholder, err := encodeStages(base, stages, enc)
	if err != nil {
		return media.Rendered{}, encodeFailure(err)
	}
	rendered := media.Rendered{
		Format: format, Width: head.upright.width, Height: head.upright.height, Animated: head.animated,
		Placeholder: placeholder,
	}
	rendered.Files, rendered.Dropped = enc.selectOutputs()
	return rendered, nil
}

// checkSpec rejects a specification that this codec cannot render. The rest was checked when the pipeline was parsed.
func checkSpec(spec pipeline.Spec) error {
	if len(spec.Renditions) == 0 {
		return media.Fail(media.PipelineImpossible, "the pipeline has no renditions", nil)
	}
	for _, r := range spec.Renditions {
		for _, o := range r.Formats {
			if _, ok := encoders[o.Format]; !ok {
				return media.Fail(media.PipelineImpossible,
					fmt.Sprintf("rendition %s: this codec does not write %s", r.Name, o.Format), nil)
			}
		}
		if _, err := colour(r.Background); err != nil {
			return media.Fail(media.PipelineImpossible, fmt.Sprintf("rendition %s: %v", r.Name, err), nil)
		}
	}
	return nil
}

// detectFormat returns the source's format if it is accepted and the source is complete.
func detectFormat(source []byte, accept []pipeline.Format) (pipeline.Format, error) {
	format := sniff(source)
	if format == "" {
		return "", media.Fail(media.UnsupportedFormat, "the source is not an image of a known format", nil)
	}
	if !slices.Contains(accept, format) {
		return "", media.Fail(media.UnsupportedFormat, fmt.Sprintf("%s is not accepted here", format), nil)
	}
	if !complete(format, source) {
		return "", media.Fail(media.Corrupt, "the image is truncated", nil)
	}
	return format, nil
}

// header holds what is read from the header of a source.
type header struct {
	upright      size // after the rotation that Exif requests
	animated     bool
	profiledCMYK bool // CMYK with a profile
}

// readHeader reads the source's header and rejects more than maxPixels before anything is decoded.
func readHeader(source []byte, format pipeline.Format, maxPixels int64) (header, error) {
	if format == pipeline.WebP {
		if err := checkPixels(webpClaim(source), maxPixels); err != nil {
			return header{}, err
		}
	}
	img, err := vips.LoadImageFromBuffer(source, vips.NewImportParams())
	if err != nil {
		return header{}, decodeFailure(err)
	}
	defer img.Close()
	frames, width, height := max(1, img.Pages()), img.Width(), img.Height()
	if err := checkPixels(claim{frames, size{width, height}}, maxPixels); err != nil {
		return header{}, err
	}
	if format == pipeline.GIF && !hasAllPixels(source, maxPixels) {
		return header{}, media.Fail(media.Corrupt, "the image is truncated", nil)
	}
	head := header{upright: size{width, height}, animated: frames > 1 && format != pipeline.HEIC || isSequence(source)}
	head.profiledCMYK = img.Interpretation() == vips.InterpretationCMYK && img.HasICCProfile()
	if img.Orientation() >= 5 { // 5 to 8 are rotated by a quarter turn
		head.upright = size{height, width}
	}
	return head, nil
}

// claim is the number and the size of frames that a header announces.
type claim struct {
	frames int
	size
}

// checkPixels rejects a claim of more than maxPixels over all frames.
func checkPixels(c claim, maxPixels int64) error {
	if int64(c.width)*int64(c.height) <= maxPixels/int64(c.frames) {
		return nil
	}
	return media.Fail(media.TooManyPixels,
		fmt.Sprintf("%d frame(s) of %d x %d pixels are more than %d pixels", c.frames, c.width, c.height, maxPixels), nil)
}

// decode returns the first frame of the source at the size to, upright, in 8-bit sRGB, in memory.
func decode(source []byte, head header, to size) (*vips.ImageRef, error) {
	load := decodeAny
	if head.profiledCMYK {
		load = decodeCMYK
	}
	_ = takeErrors() // discards the errors of earlier calls
	img, err := load(source, head, to)
	if err != nil {
		return nil, decodeFailure(err)
	}
	if warnings := takeErrors(); reportsMissingData(warnings) {
		img.Close()
		return nil, decodeFailure(errors.New(warnings))
	}
	return img, nil
}

// decodeAny reduces the image while it decodes if the format supports that. NewImportParams sets fail=TRUE, and the
// loading function that decodeAny uses is the only one of govips that passes it on for every format.
func decodeAny(source []byte, _ header, to size) (*vips.ImageRef, error) {
	img, err := vips.LoadThumbnailFromBuffer(source, to.width, to.height, vips.InterestingNone, vips.SizeForce,
		vips.NewImportParams())
	if err != nil {
		return nil, err
	}
	if err = toSRGB(img); err == nil {
		err = materialise(img) // this decodes
	}
	if err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// decodeCMYK is decodeAny for CMYK with a profile, which only a JPEG can have. The thumbnail functions of libvips convert
// all CMYK with a built-in profile, so the image is converted to RGB by its own profile before it is scaled.
func decodeCMYK(source []byte, head header, to size) (*vips.ImageRef, error) {
	params := vips.NewImportParams()
	params.JpegShrinkFactor.Set(shrinkOnLoad(head.upright, to))
	img, err := vips.LoadImageFromBuffer(source, params)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if err := toSRGB(img); err != nil {
		return nil, err
	}
	return scale(img, to) // this also applies the orientation
}

// shrinkOnLoad returns the factor by which a JPEG may shrink while it is decoded: 1, 2, 4 or 8. As in libvips, the result is
// at least twice the size that it is then scaled to.
func shrinkOnLoad(from, to size) int {
	by := 1
	for by < 8 && from.width >= 4*by*to.width && from.height >= 4*by*to.height {
		by *= 2
	}
	return by
}

// toSRGB converts any colour space to 8-bit sRGB. An embedded profile is applied; one that cannot be used is ignored, as
// browsers do. CMYK without a profile is converted by the built-in profile of libvips.
func toSRGB(img *vips.ImageRef) error {
	if img.HasICCProfile() {
		_ = img.TransformICCProfileWithFallback("srgb", "srgb") // on an error img is unchanged
	}
	return img.ToColorSpace(vips.InterpretationSRGB)
}

// encodeStages encodes the outputs of each stage, each scaled from the one before it, and returns the placeholder of the
// smallest one. It closes base.
func encodeStages(base *vips.ImageRef, stages []stage, enc *encoder) (string, error) {
	src := base
	defer func() { src.Close() }()
	for i, s := range stages {
		if i > 0 {
			smaller, err := scale(src, s.size)
			if err != nil {
				return "", err
			}
			src.Close()
			src = smaller
		}
		for _, c := range s.framings {
			if err := enc.encodeRendition(src, s.size, c); err != nil {
				return "", err
			}
		}
	}
	return placeholder(src, stages[len(stages)-1].size)
}

// scale returns a copy of img at the size to, in memory.
func scale(img *vips.ImageRef, to size) (*vips.ImageRef, error) {
	smaller, err := img.Copy()
	if err != nil {
		return nil, err
	}
	err = smaller.ThumbnailWithSize(to.width, to.height, vips.InterestingNone, vips.SizeForce)
	if err == nil {
		err = materialise(smaller)
	}
	if err != nil {
		smaller.Close()
		return nil, err
	}
	return smaller, nil
}
