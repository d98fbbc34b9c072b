package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The limits of a pipeline. maxSide, in pixels, is WebP's (RFC 9649: 14 bits). libheif's encoders fail below minAVIF pixels.
const (
	maxRenditions = 32
	maxSide       = 16383
	minAVIF       = 16
	minBytes      = 1 << 10
	maxPixels     = 1_000_000_000
	minDeadline   = Duration(time.Second)
	maxDeadline   = Duration(10 * time.Minute)
	minTimeout    = Duration(time.Millisecond)
	maxTimeout    = Duration(time.Hour)
	maxPerHost    = 1000
	maxAge        = Duration(30 * 24 * time.Hour)
)

// validate adds an error for each value out of range. It also converts background colours to lower case.
func (r *reader) validate(p *Pipeline) {
	r.check(p.APIVersion == APIVersion, "apiVersion", "unknown_value", "must be "+APIVersion)
	r.check(p.Kind == Kind, "kind", "unknown_value", "must be "+Kind)
	r.label("metadata.name", p.Metadata.Name)
	r.renditions(p.Spec)
	r.accept(p.Spec.Accept)
	r.limits(p.Spec.Limits)
	r.fetch(p.Spec.Fetch)
	r.retry(p.Spec.Retry)
	r.backfill(p.Spec.Backfill)
}

// check adds an error unless ok.
func (r *reader) check(ok bool, path, code, detail string) {
	if !ok {
		r.add(path, code, detail)
	}
}

// label requires a DNS label, which is safe in file names, object keys and URLs.
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

// between requires low <= got <= high, which NaN is not.
func between[T int | int64 | float64 | Bytes | Duration](r *reader, path string, got, low, high T) {
	r.check(low <= got && got <= high, path, "out_of_range", fmt.Sprintf("must be %v to %v", low, high))
}

// notBelow requires that the field name of the section path is at least the field of the same section called other, unless
// that one is unreadable.
func notBelow[T int | Duration](r *reader, path, name string, got T, other string, low T) {
	r.check(got >= low || !r.readable(path+"."+other), path+"."+name, "out_of_range", "must not be below "+other)
}

func (r *reader) renditions(s Spec) {
	r.count("spec.renditions", len(s.Renditions), maxRenditions)
	names := map[string]bool{}
	marked := ""
	for i := range s.Renditions {
		rendition := &s.Renditions[i]
		path := fmt.Sprintf("spec.renditions[%d]", i)
		r.rendition(path, rendition)
		r.check(!names[rendition.Name], path+".name", "not_unique", "is the name of another rendition")
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
	wrong := slices.ContainsFunc(r.wrong, func(f fault.Field) bool { return strings.HasPrefix(f.Path, "spec.renditions") })
	r.check(marked != "" || wrong, "spec.renditions", "required",
		"mark one format with default: true, since none of them is jpeg")
}

func (r *reader) count(path string, got, limit int) {
	r.check(1 <= got && got <= limit, path, "out_of_range", fmt.Sprintf("must have 1 to %d entries", limit))
}

func (r *reader) rendition(path string, rendition *Rendition) {
	r.label(path+".name", rendition.Name)
	between(r, path+".width", rendition.Width, 1, maxSide)
	between(r, path+".height", rendition.Height, 0, maxSide)
	switch rendition.Fit {
	case Inside:
	case Cover, Contain:
		r.check(rendition.Height != 0, path+".height", "required", "is needed for fit "+string(rendition.Fit))
	default:
		r.add(path+".fit", "unknown_value", "must be inside, cover or contain")
	}
	rendition.Background = strings.ToLower(rendition.Background)
	r.check(isColour(rendition.Background), path+".background", "bad_form", "must be a colour such as #ffffff")
	r.count(path+".formats", len(rendition.Formats), 4)
	formats := map[Format]bool{}
	for j, output := range rendition.Formats {
		at := fmt.Sprintf("%s.formats[%d]", path, j)
		r.output(at, output)
		r.check(!formats[output.Format], at+".format", "not_unique", "is listed twice")
		formats[output.Format] = true
	}
	if formats[AVIF] {
		low := fmt.Sprintf("must be at least %d for avif", minAVIF)
		r.check(rendition.Width >= minAVIF, path+".width", "out_of_range", low)
		r.check(rendition.Height == 0 || rendition.Height >= minAVIF, path+".height", "out_of_range", low)
	}
}

func (r *reader) output(path string, output Output) {
	qualityGiven := r.seen[path+".quality"]
	switch output.Format {
	case PNG:
		r.check(!qualityGiven, path+".quality", "conflict", "is not allowed for png, which is lossless")
		r.check(output.Target == nil, path+".target", "conflict", "is not allowed for png, which is lossless")
		return
	case JPEG, WebP, AVIF:
	default:
		r.add(path+".format", "unknown_value", "must be jpeg, png, webp or avif")
		return
	}
	if output.Target == nil {
		between(r, path+".quality", output.Quality, 1, 100)
		return
	}
	r.check(!qualityGiven, path+".target", "conflict", "and quality exclude each other")
	r.target(path+".target", *output.Target)
}

func (r *reader) target(path string, target Target) {
	between(r, path+".ssimulacra2", target.Ssimulacra2, 1, 100)
	between(r, path+".min", target.Min, 1, 100)
	between(r, path+".max", target.Max, 1, 100)
	notBelow(r, path, "max", target.Max, "min", target.Min)
}

func (r *reader) accept(formats []Format) {
	r.check(len(formats) > 0, "spec.accept", "out_of_range", "must have at least one entry")
	for i, f := range formats {
		path := fmt.Sprintf("spec.accept[%d]", i)
		r.check(slices.Contains(defaultAccept(), f), path, "unknown_value", "must be jpeg, png, webp, gif, avif or heic")
		r.check(!slices.Contains(formats[:i], f), path, "not_unique", "is listed twice")
	}
}

// maxSource is the maximum size of a source in the codec's protocol, in bytes; see package codecproto.
const maxSource = 256 << 20

func (r *reader) limits(l Limits) {
	between(r, "spec.limits.maxBytes", l.MaxBytes, minBytes, maxSource)
	between(r, "spec.limits.maxPixels", l.MaxPixels, 1, maxPixels)
	between(r, "spec.limits.deadline", l.Deadline, minDeadline, maxDeadline)
}

func (r *reader) fetch(f Fetch) {
	between(r, "spec.fetch.connectTimeout", f.ConnectTimeout, minTimeout, maxTimeout)
	between(r, "spec.fetch.headerTimeout", f.HeaderTimeout, minTimeout, maxTimeout)
	between(r, "spec.fetch.timeout", f.Timeout, minTimeout, maxTimeout)
	notBelow(r, "spec.fetch", "timeout", f.Timeout, "headerTimeout", f.HeaderTimeout)
	between(r, "spec.fetch.maxRedirects", f.MaxRedirects, 0, 20)
	between(r, "spec.fetch.perHost", f.PerHost, 1, maxPerHost)
}

func (r *reader) retry(t Retry) {
	between(r, "spec.retry.maxAttempts", t.MaxAttempts, 1, 100)
	between(r, "spec.retry.backoff", t.Backoff, minTimeout, maxAge)
	between(r, "spec.retry.maxBackoff", t.MaxBackoff, minTimeout, maxAge)
	between(r, "spec.retry.maxAge", t.MaxAge, minTimeout, maxAge)
	notBelow(r, "spec.retry", "maxBackoff", t.MaxBackoff, "backoff", t.Backoff)
	notBelow(r, "spec.retry", "maxAge", t.MaxAge, "maxBackoff", t.MaxBackoff)
}

// hashForm is the form of a [Pipeline.Hash].
var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (r *reader) backfill(b Backfill) {
	r.check(b.Policy == Never || b.Policy == Propose || b.Policy == Auto, "spec.backfill.policy", "unknown_value",
		"must be Never, Propose or Auto")
	r.check(b.OnMissing == FetchMissing || b.OnMissing == SkipMissing, "spec.backfill.onMissing", "unknown_value",
		"must be Fetch or Skip")
	const approved = "spec.backfill.approvedHash"
	r.check(!r.seen[approved] || hashForm.MatchString(b.ApprovedHash), approved, "bad_form",
		"must be a hash: 64 hexadecimal digits in lower case")
	for _, gate := range []struct {
		name      string
		got       *float64
		low, high float64
	}{
		{"maxFailedPercent", b.Gates.MaxFailedPercent, 0, 100},
		{"maxBytesIncreasePercent", b.Gates.MaxBytesIncreasePercent, -100, 10_000},
		{"minScoreDelta", b.Gates.MinScoreDelta, -100, 100},
	} {
		if gate.got != nil {
			between(r, "spec.backfill.gates."+gate.name, *gate.got, gate.low, gate.high)
		}
	}
}

func isColour(text string) bool {
	digit := func(c rune) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
	return len(text) == 7 && text[0] == '#' && !strings.ContainsFunc(text[1:], func(c rune) bool { return !digit(c) })
}
