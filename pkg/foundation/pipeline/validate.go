package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The bounds of a pipeline. MaxSide is WebP's (RFC 9649, 14 bits); minAVIF is where libheif's encoders begin to fail.
const (
	maxRenditions = 32
	maxSide       = 16383
	minAVIF       = 16
	maxTimeout    = Duration(time.Hour)
	maxAge        = Duration(30 * 24 * time.Hour)
)

// validate notes everything that is out of range. It may tidy spelling (the case of a colour), never meaning.
func (r *reader) validate(p *Pipeline) {
	r.exactly("apiVersion", p.APIVersion, APIVersion)
	r.exactly("kind", p.Kind, Kind)
	r.label("metadata.name", p.Metadata.Name)
	r.renditions(p.Spec)
	r.accept(p.Spec.Accept)
	r.limits(p.Spec.Limits)
	r.fetch(p.Spec.Fetch)
	r.retry(p.Spec.Retry)
}

func (r *reader) exactly(path, got, want string) {
	if got != want {
		r.add(path, "unknown_value", "must be "+want)
	}
}

// label demands a DNS label, which is safe in a file name, an object's key and a URL.
func (r *reader) label(path, name string) {
	inside := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' }
	outside := func(c rune) bool { return !inside(c) }
	switch {
	case !r.seen[path]:
		r.add(path, "required", "is missing")
	case name == "" || len(name) > 63 || strings.ContainsFunc(name, outside) || name[0] == '-' || name[len(name)-1] == '-':
		r.add(path, "bad_form", "must be 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit")
	}
}

// between demands that low <= got <= high.
func (r *reader) between(path string, got, low, high int64) {
	if got < low || got > high {
		r.add(path, "out_of_range", fmt.Sprintf("must be %d to %d", low, high))
	}
}

// within demands that low <= got <= high.
func (r *reader) within(path string, got, low, high Duration) {
	if got < low || got > high {
		r.add(path, "out_of_range", fmt.Sprintf("must be %v to %v", low, high))
	}
}

func (r *reader) renditions(s Spec) {
	r.count("spec.renditions", len(s.Renditions), maxRenditions)
	names := map[string]bool{}
	marked := ""
	for i := range s.Renditions {
		rendition := &s.Renditions[i]
		path := fmt.Sprintf("spec.renditions[%d]", i)
		r.rendition(path, rendition)
		if names[rendition.Name] {
			r.add(path+".name", "not_unique", "is the name of another rendition")
		}
		names[rendition.Name] = true
		for j, output := range rendition.Formats {
			at := fmt.Sprintf("%s.formats[%d]", path, j)
			if output.Default && marked != "" {
				r.add(at+".default", "not_unique", marked+" is the default already")
			} else if output.Default {
				marked = at
			}
		}
	}
	if marked == "" && !r.anyBelow("spec.renditions") {
		r.add("spec.renditions", "required", "mark one format with default: true, since none of them is jpeg")
	}
}

// anyBelow reports whether something is wrong at path or below it.
func (r *reader) anyBelow(path string) bool {
	return slices.ContainsFunc(r.wrong, func(f fault.Field) bool { return strings.HasPrefix(f.Path, path) })
}

func (r *reader) count(path string, got, most int) {
	if got < 1 || got > most {
		r.add(path, "out_of_range", fmt.Sprintf("must have 1 to %d entries", most))
	}
}

func (r *reader) rendition(path string, rendition *Rendition) {
	r.label(path+".name", rendition.Name)
	r.between(path+".width", int64(rendition.Width), 1, maxSide)
	r.between(path+".height", int64(rendition.Height), 0, maxSide)
	switch rendition.Fit {
	case Inside:
	case Cover, Contain:
		if rendition.Height == 0 {
			r.add(path+".height", "required", "is needed for fit "+string(rendition.Fit))
		}
	default:
		r.add(path+".fit", "unknown_value", "must be inside, cover or contain")
	}
	rendition.Background = strings.ToLower(rendition.Background)
	if !isColour(rendition.Background) {
		r.add(path+".background", "bad_form", "must be a colour such as #ffffff")
	}
	r.count(path+".formats", len(rendition.Formats), 4)
	formats := map[Format]bool{}
	for j, output := range rendition.Formats {
		at := fmt.Sprintf("%s.formats[%d]", path, j)
		r.output(at, output)
		if formats[output.Format] {
			r.add(at+".format", "not_unique", "is there already")
		}
		formats[output.Format] = true
	}
	if formats[AVIF] {
		r.minAVIFSide(path, *rendition)
	}
}

func (r *reader) minAVIFSide(path string, rendition Rendition) {
	if rendition.Width < minAVIF {
		r.add(path+".width", "out_of_range", fmt.Sprintf("must be at least %d for avif", minAVIF))
	}
	if rendition.Height != 0 && rendition.Height < minAVIF {
		r.add(path+".height", "out_of_range", fmt.Sprintf("must be at least %d for avif", minAVIF))
	}
}

func (r *reader) output(path string, output Output) {
	qualityGiven := r.seen[path+".quality"]
	switch output.Format {
	case PNG:
		if qualityGiven {
			r.add(path+".quality", "conflict", "is not for png, which loses nothing")
		}
		if output.Target != nil {
			r.add(path+".target", "conflict", "is not for png, which loses nothing")
		}
		return
	case JPEG, WebP, AVIF:
	default:
		r.add(path+".format", "unknown_value", "must be jpeg, png, webp or avif")
		return
	}
	if output.Target == nil {
		r.between(path+".quality", int64(output.Quality), 1, 100)
		return
	}
	if qualityGiven {
		r.add(path+".target", "conflict", "and quality exclude each other")
	}
	r.target(path+".target", *output.Target)
}

func (r *reader) target(path string, target Target) {
	if !(target.Ssimulacra2 >= 1 && target.Ssimulacra2 <= 100) { // not the reverse: NaN is no score either
		r.add(path+".ssimulacra2", "out_of_range", "must be 1 to 100")
	}
	r.between(path+".min", int64(target.Min), 1, 100)
	r.between(path+".max", int64(target.Max), 1, 100)
	if target.Min > target.Max && r.readable(path+".min") {
		r.add(path+".max", "out_of_range", "must not be below min")
	}
}

func (r *reader) accept(formats []Format) {
	if len(formats) == 0 {
		r.add("spec.accept", "out_of_range", "must have at least one entry")
	}
	for i, f := range formats {
		path := fmt.Sprintf("spec.accept[%d]", i)
		if !slices.Contains(defaultAccept(), f) {
			r.add(path, "unknown_value", "must be jpeg, png, webp, gif, avif or heic")
		} else if slices.Contains(formats[:i], f) {
			r.add(path, "not_unique", "is there already")
		}
	}
}

// maxSource is what a codec takes as one source, see package codec.
const maxSource = 256 << 20

func (r *reader) limits(l Limits) {
	if l.MaxBytes < 1<<10 || l.MaxBytes > maxSource {
		r.add("spec.limits.maxBytes", "out_of_range", "must be 1Ki to 256Mi")
	}
	r.between("spec.limits.maxPixels", l.MaxPixels, 1, 1_000_000_000)
	r.within("spec.limits.deadline", l.Deadline, Duration(time.Second), Duration(10*time.Minute))
}

func (r *reader) fetch(f Fetch) {
	const least = Duration(time.Millisecond)
	r.within("spec.fetch.connectTimeout", f.ConnectTimeout, least, maxTimeout)
	r.within("spec.fetch.headerTimeout", f.HeaderTimeout, least, maxTimeout)
	r.within("spec.fetch.timeout", f.Timeout, least, maxTimeout)
	if f.Timeout < f.HeaderTimeout && r.readable("spec.fetch.headerTimeout") {
		r.add("spec.fetch.timeout", "out_of_range", "must not be below headerTimeout")
	}
	r.between("spec.fetch.maxRedirects", int64(f.MaxRedirects), 0, 20)
	r.between("spec.fetch.perHost", int64(f.PerHost), 1, 1000)
	for i, text := range f.AllowCIDRs {
		prefix, err := netip.ParsePrefix(text)
		switch path := fmt.Sprintf("spec.fetch.allowCIDRs[%d]", i); {
		case err != nil:
			r.add(path, "bad_form", "must be a network such as 10.1.0.0/16 or fd00::/8")
		case prefix.Addr().Is4In6():
			r.add(path, "bad_form", "must be written as the IPv4 network it stands for")
		case prefix != prefix.Masked():
			r.add(path, "bad_form", "has bits beyond its mask: is "+prefix.Masked().String()+" meant?")
		}
	}
	for i, port := range f.AllowPorts {
		r.between(fmt.Sprintf("spec.fetch.allowPorts[%d]", i), int64(port), 1, 65535)
	}
}

func (r *reader) retry(t Retry) {
	const least = Duration(time.Millisecond)
	r.between("spec.retry.maxAttempts", int64(t.MaxAttempts), 1, 100)
	r.within("spec.retry.backoff", t.Backoff, least, maxAge)
	r.within("spec.retry.maxBackoff", t.MaxBackoff, least, maxAge)
	r.within("spec.retry.maxAge", t.MaxAge, least, maxAge)
	if t.MaxBackoff < t.Backoff && r.readable("spec.retry.backoff") {
		r.add("spec.retry.maxBackoff", "out_of_range", "must not be below backoff")
	}
	if t.MaxAge < t.MaxBackoff && r.readable("spec.retry.maxBackoff") {
		r.add("spec.retry.maxAge", "out_of_range", "must not be below maxBackoff")
	}
}

func isColour(text string) bool {
	digit := func(c rune) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
	return len(text) == 7 && text[0] == '#' && !strings.ContainsFunc(text[1:], func(c rune) bool { return !digit(c) })
}
