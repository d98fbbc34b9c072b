package catalog

import (
	"regexp"
	"strconv"
)

// attemptKey matches the beginning of an object's key up to the end of its attempt's prefix: in the form that begin creates,
// or in that of the samples of canaries.
var attemptKey = regexp.MustCompile(
	`^(?:(?:products|originals)/[1-9][0-9]*/([1-9][0-9]*)/[1-9][0-9]*|canary/[1-9][0-9]*/([1-9][0-9]*))-[0-9a-z]+/`)

// PrefixOf returns the prefix of the attempt that stored an object, rendition or original, and the attempt's image. ok is
// false for a key that no attempt writes.
func PrefixOf(key string) (prefix string, image ImageID, ok bool) {
	found := attemptKey.FindStringSubmatch(key)
	if found == nil || found[0] == key {
		return "", 0, false
	}
	id, err := strconv.ParseInt(found[1]+found[2], 10, 64) // one of them is empty
	if err != nil {
		return "", 0, false
	}
	return found[0], ImageID(id), true
}
