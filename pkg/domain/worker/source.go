package worker

import (
	"context"

	"vitrine.io/pkg/foundation/media"
)

// connectionCodes are the codes of failures that an outage of egress causes.
var connectionCodes = map[media.Code]bool{
	media.ConnectFailed: true, media.TLSFailed: true, media.Timeout: true, media.Incomplete: true,
}

// observeFetch reports the result of a download to the breakers, and returns it. If an outage of this installation's network
// explains a failure, it opens the breaker and returns the outage, which costs no attempt.
func (w *Worker) observeFetch(ctx context.Context, t *task, err error) error {
	f := media.FailureOf(err)
	switch {
	case err != nil && f == nil: // stopped
		return err
	case err == nil:
		if w.Egress != nil {
			w.Egress.succeeded(t.attempt.SourceURL, t.attempt.UserID)
		}
	case f.Code == media.ResolverUnavailable:
		w.Breakers.Trip(DependencyResolver, f)
		return err
	case connectionCodes[f.Code]:
		return w.blameEgress(ctx, err)
	case f.Code == media.DNSFailed, f.Code == media.URLForbidden, f.Code == media.HostBusy: // nothing was sent to the source
		return err
	case w.Egress != nil:
		w.Egress.responded()
	}
	w.Breakers.Report(DependencyResolver, nil)
	w.Breakers.Report(DependencyEgress, nil)
	return err
}

// blameEgress returns the outage that explains a failed connection, or err if the source is at fault.
func (w *Worker) blameEgress(ctx context.Context, err error) error {
	if w.Egress == nil {
		return err
	}
	if w.Breakers.isOpen(DependencyEgress) {
		return media.Fail(media.EgressUnavailable, "this installation reaches no source at the moment", err)
	}
	outage := w.Egress.outage(ctx)
	if outage == nil {
		return err
	}
	dependency := DependencyEgress
	if outage.Code == media.ResolverUnavailable {
		dependency = DependencyResolver
	}
	w.Breakers.Trip(dependency, outage)
	return media.Fail(outage.Code, outage.Detail, err)
}
