package catalog

import (
	"regexp"
	"strconv"
)

// attemptKey is what the key of a picture's object looks like, as begin makes its prefix.
var attemptKey = regexp.MustCompile(`^products/[1-9][0-9]*/([1-9][0-9]*)/[1-9][0-9]*-[0-9a-z]+/`)

// PrefixOf returns the prefix of the attempt that an object's key belongs to, and the attempt's picture; false for a key
// that no attempt can have made.
func PrefixOf(key string) (prefix string, image ImageID, ok bool) {
	found := attemptKey.FindStringSubmatch(key)
	if found == nil || found[0] == key {
		return "", 0, false
	}
	id, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return "", 0, false
	}
	return found[0], ImageID(id), true
}
