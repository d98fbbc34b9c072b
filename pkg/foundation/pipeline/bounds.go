package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Bounds are what an installation allows its pipelines. They belong to the operator of the installation, not to the author
// of a pipeline: a pipeline that exceeds one is refused, and what a worker may reach is not part of a pipeline at all.
type Bounds struct {
	AllowCIDRs []string `env:"ALLOW_CIDRS" desc:"networks from which sources may be downloaded on every port although they are not public, such as 10.1.0.0/16"`
	AllowPorts []string `env:"ALLOW_PORTS" envDefault:"80,443" desc:"ports of public addresses from which sources may be downloaded; a comma alone: none"`

	AllowOriginals bool `env:"ALLOW_ORIGINALS" envDefault:"false" json:",omitzero" desc:"pipelines may keep originals; needs VITRINE_S3_ORIGINALS_BUCKET"`

	MaxRenditions int           `env:"MAX_RENDITIONS" envDefault:"32" desc:"maximum number of renditions of a pipeline"`
	MaxBytes      int64         `env:"MAX_BYTES" envDefault:"268435456" desc:"maximum of limits.maxBytes"`
	MaxPixels     int64         `env:"MAX_PIXELS" envDefault:"1000000000" desc:"maximum of limits.maxPixels"`
	MaxDeadline   time.Duration `env:"MAX_DEADLINE" envDefault:"10m" desc:"maximum of limits.deadline"`
	MaxTimeout    time.Duration `env:"MAX_TIMEOUT" envDefault:"1h" desc:"maximum of fetch.timeout"`
	MaxPerHost    int           `env:"MAX_PER_HOST" envDefault:"1000" desc:"maximum of fetch.perHost"`
	MaxAge        time.Duration `env:"MAX_AGE" envDefault:"720h" desc:"maximum of retry.maxAge"`
}

// DefaultBounds returns the bounds of an installation that sets none: every valid pipeline is within them, and sources are
// downloaded only from public addresses.
func DefaultBounds() Bounds {
	return Bounds{
		AllowPorts:    []string{"80", "443"},
		MaxRenditions: maxRenditions, MaxBytes: maxSource, MaxPixels: maxPixels, MaxDeadline: maxDeadline.D(),
		MaxTimeout: maxTimeout.D(), MaxPerHost: maxPerHost, MaxAge: maxAge.D(),
	}
}

// Validate returns all invalid fields.
func (b Bounds) Validate() []fault.Field {
	var check fault.Checker
	for _, text := range b.AllowCIDRs {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			check.Add("ALLOW_CIDRS", "bad_form", "%q is not a network such as 10.1.0.0/16 or fd00::/8", text)
		case prefix.Addr().Is4In6():
			check.Add("ALLOW_CIDRS", "bad_form", "%q must be written as the IPv4 network it stands for", text)
		case prefix != prefix.Masked():
			check.Add("ALLOW_CIDRS", "bad_form", "%q has bits beyond its mask: is %s meant?", text, prefix.Masked())
		}
	}
	for _, text := range b.AllowPorts {
		if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			check.Add("ALLOW_PORTS", "bad_form", "%q is not a port from 1 to 65535", text)
		}
	}
	check.Range(1 <= b.MaxRenditions && b.MaxRenditions <= maxRenditions, "MAX_RENDITIONS", "from 1 to 32")
	check.Range(minBytes <= b.MaxBytes && b.MaxBytes <= maxSource, "MAX_BYTES", "from 1024 to 268435456")
	check.Range(1 <= b.MaxPixels && b.MaxPixels <= maxPixels, "MAX_PIXELS", "from 1 to 1000000000")
	check.Range(minDeadline.D() <= b.MaxDeadline && b.MaxDeadline <= maxDeadline.D(), "MAX_DEADLINE", "from 1s to 10m")
	check.Range(minTimeout.D() <= b.MaxTimeout && b.MaxTimeout <= maxTimeout.D(), "MAX_TIMEOUT", "from 1ms to 1h")
	check.Range(1 <= b.MaxPerHost && b.MaxPerHost <= maxPerHost, "MAX_PER_HOST", "from 1 to 1000")
	check.Range(minTimeout.D() <= b.MaxAge && b.MaxAge <= maxAge.D(), "MAX_AGE", "from 1ms to 720h")
	return check.Fields()
}

// Networks returns AllowCIDRs, without invalid ones.
func (b Bounds) Networks() []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range b.AllowCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			networks = append(networks, prefix)
		}
	}
	return networks
}

// Ports returns AllowPorts, without invalid ones.
func (b Bounds) Ports() []uint16 {
	var ports []uint16
	for _, text := range b.AllowPorts {
		if port, err := strconv.ParseUint(text, 10, 16); err == nil {
			ports = append(ports, uint16(port))
		}
	}
	return ports
}

// Parse parses an ImagePipeline as [Parse] does and then compares it with the bounds. A valid pipeline beyond them is a
// fault.Invalid with the code exceeds_bounds, whose Fields are all values that exceed one. No value is lowered to its bound,
// because images would then differ from the specification.
func (b Bounds) Parse(data []byte) (Pipeline, error) {
	p, err := Parse(data)
	if err != nil {
		return Pipeline{}, err
	}
	if err := b.check(p.Spec); err != nil {
		return Pipeline{}, err
	}
	return p, nil
}

// check returns the error of Parse for a specification that exceeds the bounds.
func (b Bounds) check(s Spec) error {
	var wrong []fault.Field
	for _, c := range []struct {
		within        bool
		path, setting string
		bound         any
	}{
		{len(s.Renditions) <= b.MaxRenditions, "spec.renditions", "MAX_RENDITIONS", fmt.Sprint(b.MaxRenditions, " entries")},
		{int64(s.Limits.MaxBytes) <= b.MaxBytes, "spec.limits.maxBytes", "MAX_BYTES", Bytes(b.MaxBytes)},
		{s.Limits.MaxPixels <= b.MaxPixels, "spec.limits.maxPixels", "MAX_PIXELS", b.MaxPixels},
		{s.Limits.Deadline.D() <= b.MaxDeadline, "spec.limits.deadline", "MAX_DEADLINE", Duration(b.MaxDeadline)},
		{s.Fetch.Timeout.D() <= b.MaxTimeout, "spec.fetch.timeout", "MAX_TIMEOUT", Duration(b.MaxTimeout)},
		{s.Fetch.PerHost <= b.MaxPerHost, "spec.fetch.perHost", "MAX_PER_HOST", b.MaxPerHost},
		{s.Retry.MaxAge.D() <= b.MaxAge, "spec.retry.maxAge", "MAX_AGE", Duration(b.MaxAge)},
	} {
		if !c.within {
			wrong = append(wrong, fault.Field{
				Path: c.path, Code: "out_of_range",
				Detail: fmt.Sprintf("must be at most %v, a bound of this installation (VITRINE_PIPELINE_%s)", c.bound, c.setting),
			})
		}
	}
	if s.Originals.Keep && !b.AllowOriginals {
		wrong = append(wrong, fault.Field{
			Path: "spec.originals.keep", Code: "not_allowed",
			Detail: "needs a bucket for originals, which this installation has not " +
				"(VITRINE_S3_ORIGINALS_BUCKET and VITRINE_PIPELINE_ALLOW_ORIGINALS)",
		})
	}
	if len(wrong) == 0 {
		return nil
	}
	exceeds := fault.New(fault.Invalid, ExceedsBounds, "the image pipeline exceeds the bounds of this installation")
	exceeds.Fields = wrong
	return exceeds
}

// canonical returns the bounds with sorted lists, because their order has no meaning. An empty list is nil: no setting and
// a comma alone are the same.
func (b Bounds) canonical() Bounds {
	sorted := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	b.AllowCIDRs, b.AllowPorts = sorted(b.AllowCIDRs), sorted(b.AllowPorts)
	return b
}

// moved maps fields of earlier versions to what replaces them.
var moved = map[string]string{
	"spec.fetch.allowCIDRs": "ALLOW_CIDRS",
	"spec.fetch.allowPorts": "ALLOW_PORTS",
}

// movedTo returns where a field's value belongs now, or "".
func movedTo(path string) string {
	name := moved[path]
	if name == "" {
		return ""
	}
	return "is a bound of the installation, not of a pipeline: set VITRINE_PIPELINE_" + name +
		", in the chart pipelineBounds." + path[strings.LastIndexByte(path, '.')+1:]
}
