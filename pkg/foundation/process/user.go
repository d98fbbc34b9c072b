package process

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Unprivileged returns whom a program that refuses to be root is to run as, when this process runs as uid: nil for
// ourselves; for root, the first of names that is a user here. It fails if none is.
func Unprivileged(uid int, names ...string) (*syscall.Credential, error) {
	if uid != 0 {
		return nil, nil //nolint:nilnil // no other user is an answer
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
	return nil, fmt.Errorf("it refuses to run as root, and none of these users is here: %s", strings.Join(names, ", "))
}
