//go:build !linux || (!amd64 && !arm64)

package sandbox

import (
	"fmt"
	"runtime"
)

// Enter returns an error: there is no sandbox for this system.
func Enter() error {
	return fmt.Errorf("enter sandbox: not supported for %s on %s", runtime.GOOS, runtime.GOARCH)
}
