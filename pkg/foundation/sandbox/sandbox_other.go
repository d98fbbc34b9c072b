//go:build !linux || (!amd64 && !arm64)

package sandbox

import (
	"fmt"
	"runtime"
)

// Enter is an error here.
func Enter() error {
	return fmt.Errorf("enter sandbox: there is none for %s on %s", runtime.GOOS, runtime.GOARCH)
}
