package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below the range that Linux gives to outgoing connections (32768 and up). So nobody happens to sit on
// a port between our choice and the server's bind, nor while a test has its server stopped. A Redis node listens on its
// port + 10000 too, which stays below as well.
const (
	portLow  = 12000
	portHigh = 22000
	busShift = 10000
)

// freePort returns a port of 127.0.0.1 where it and the ports at the given distances are free just now. Two processes may
// still choose the same one; the caller starts again then.
func freePort(shifts ...int) (int, error) {
	for range 200 {
		port := portLow + rand.IntN(portHigh-portLow) //nolint:gosec // no secret depends on it
		if allFree(port, shifts) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on 127.0.0.1 between %d and %d", portLow, portHigh)
}

func allFree(port int, shifts []int) bool {
	for _, shift := range append([]int{0}, shifts...) {
		l, err := net.Listen("tcp", local(port+shift))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// local is the address of a port on this machine.
func local(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
