// Package nameserver is a DNS server for tests and harnesses. Every name has the address 127.0.0.1, except those below
// absent.test, which do not exist. The server can be taken away: it then answers SERVFAIL, or nothing.
package nameserver

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

// Mode is how a server answers.
type Mode int32

// The modes. The zero value is Answers.
const (
	Answers Mode = iota
	Fails        // SERVFAIL
	Silent       // no answer
)

// Absent is the domain whose names do not exist.
const Absent = "absent.test."

// Server answers on a UDP port of 127.0.0.1 until Close. It is safe for concurrent use.
type Server struct {
	Addr string

	conn    *net.UDPConn
	mode    atomic.Int32
	serving sync.WaitGroup
}

// Start starts a server on a free port.
func Start() (*Server, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("serve names: %w", err)
	}
	s := &Server{Addr: conn.LocalAddr().String(), conn: conn}
	s.serving.Go(s.serve)
	return s, nil
}

// Close stops the server.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.serving.Wait()
	return err
}

// SetMode sets how later questions are answered.
func (s *Server) SetMode(mode Mode) { s.mode.Store(int32(mode)) }

func (s *Server) serve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		if packet, ok := answer(buffer[:n], Mode(s.mode.Load())); ok {
			_, _ = s.conn.WriteToUDPAddrPort(packet, from) // a lost answer is asked for again
		}
	}
}

// answer returns the answer to a query; ok is false if there is none.
func answer(packet []byte, mode Mode) (_ []byte, ok bool) {
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil || len(m.Questions) != 1 || mode == Silent {
		return nil, false
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Authorities, m.Additionals = true, true, nil, nil
	switch {
	case mode == Fails:
		m.RCode = dnsmessage.RCodeServerFailure
	case strings.HasSuffix("."+q.Name.String(), "."+Absent):
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	reply, err := m.Pack()
	return reply, err == nil
}
