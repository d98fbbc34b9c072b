package maintenance

import (
	"context"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// Buckets are the two buckets of an installation, as the garbage collector uses them: each prefix names its bucket.
type Buckets struct {
	Renditions Objects
	Originals  Objects // nil: none is configured
}

var _ Objects = Buckets{}

// errNoBucket says that scheduled deletions of originals have to wait until their bucket is configured.
var errNoBucket = fault.New(fault.Unavailable, "no_bucket",
	"there are originals to delete, and no bucket for them is configured (VITRINE_S3_ORIGINALS_BUCKET)")

// DeletePrefixes implements Objects. A prefix of originals is an error while no bucket for them is configured.
func (b Buckets) DeletePrefixes(ctx context.Context, prefixes []string) []error {
	errs := make([]error, len(prefixes))
	for _, bucket := range []struct {
		objects   Objects
		originals bool
	}{{b.Renditions, false}, {b.Originals, true}} {
		var own []string
		var places []int
		for i, prefix := range prefixes {
			if catalog.IsOriginal(prefix) == bucket.originals {
				own, places = append(own, prefix), append(places, i)
			}
		}
		if len(own) == 0 {
			continue
		}
		for i, err := range deleteIn(ctx, bucket.objects, own) {
			errs[places[i]] = err
		}
	}
	return errs
}

func deleteIn(ctx context.Context, objects Objects, prefixes []string) []error {
	if objects != nil {
		return objects.DeletePrefixes(ctx, prefixes)
	}
	errs := make([]error, len(prefixes))
	for i := range errs {
		errs[i] = errNoBucket
	}
	return errs
}
