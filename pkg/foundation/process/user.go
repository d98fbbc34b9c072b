package process

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Unprivileged returns the user for a child that refuses to run as root, for a parent with the user id uid. It is nil, the
// same user, unless uid is 0; then it is the first of names that exists on this machine. It is an error if none exists.
func Unprivileged(uid int, names ...string) (*syscall.Credential, error) {
	if uid != 0 {
		return nil, nil //nolint:nilnil // no other user is a valid result
	}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		id, errUID := strconv.ParseUint(u.Uid, 10, 32)
		group, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			return &syscall.Credential{Uid: uint32(id), Gid: uint32(group)}, nil
		}
	}
	return nil, fmt.Errorf("the program refuses to run as root, and none of these users exists: %s", strings.Join(names, ", "))
}
