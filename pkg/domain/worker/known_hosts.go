package worker

import (
	"net/url"
	"strings"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// The bounds of knownHosts. A user has few, so that one user's hosts do not displace those of others.
const (
	maxKnownHosts   = 64
	maxHostsPerUser = 2
)

// knownHosts remembers the hosts from which a download succeeded, each with one user, for a time. It is not safe for
// concurrent use.
type knownHosts struct {
	memory time.Duration
	hosts  map[string]knownHost // by origin
	frozen time.Time            // during an outage: when it was found; no host is forgotten meanwhile
}

type knownHost struct {
	user catalog.UserID
	good time.Time // of the last download
}

// origin returns the scheme, host and port of a URL as a URL, or "" if it has none.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

// add remembers the host of a source. A host keeps its first user. Otherwise a user whose images are at the hosts of others
// would take these over, and too few users would be left to judge by.
func (k *knownHosts) add(source string, user catalog.UserID, now time.Time) {
	at := origin(source)
	if at == "" {
		return
	}
	if known, ok := k.hosts[at]; ok {
		k.hosts[at] = knownHost{known.user, now}
		return
	}
	ofUser := 0
	for _, host := range k.hosts {
		if host.user == user {
			ofUser++
		}
	}
	switch {
	case ofUser >= maxHostsPerUser:
		k.removeOldest(func(h knownHost) bool { return h.user == user })
	case len(k.hosts) >= maxKnownHosts:
		k.removeOldest(func(knownHost) bool { return true })
	}
	k.hosts[at] = knownHost{user, now}
}

// removeOldest removes the host with the oldest download among those that match.
func (k *knownHosts) removeOldest(match func(knownHost) bool) {
	oldest := ""
	for at, host := range k.hosts {
		if match(host) && (oldest == "" || host.good.Before(k.hosts[oldest].good)) {
			oldest = at
		}
	}
	delete(k.hosts, oldest)
}

// freeze stops the aging of all hosts.
func (k *knownHosts) freeze(now time.Time) {
	if k.frozen.IsZero() {
		k.frozen = now
	}
}

// thaw continues the aging after freeze, as if no time had passed.
func (k *knownHosts) thaw(now time.Time) {
	if k.frozen.IsZero() {
		return
	}
	for at, host := range k.hosts {
		host.good = host.good.Add(now.Sub(k.frozen))
		k.hosts[at] = host
	}
	k.frozen = time.Time{}
}

// recent forgets the old hosts, and returns the others, in the random order of a map, and the number of their users.
func (k *knownHosts) recent(now time.Time) (origins []string, users int) {
	if !k.frozen.IsZero() {
		now = k.frozen
	}
	distinct := map[catalog.UserID]bool{}
	for at, host := range k.hosts {
		if now.Sub(host.good) > k.memory {
			delete(k.hosts, at)
			continue
		}
		distinct[host.user] = true
		origins = append(origins, at)
	}
	return origins, len(distinct)
}

// users returns the number of users to whom the origins belong.
func (k *knownHosts) users(origins []string) int {
	distinct := map[catalog.UserID]bool{}
	for _, at := range origins {
		if host, ok := k.hosts[at]; ok {
			distinct[host.user] = true
		}
	}
	return len(distinct)
}
