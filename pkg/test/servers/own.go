package servers

import "testing"

// Server is a server of one test, which may stop and restart it. It ends with the test.
type Server struct {
	DSN   string   // of Postgres: a pgx URL of an empty database, as a superuser; else empty
	Addrs []string // host:port of each node; the same after a restart

	server *server
}

// PostgresServer starts a Postgres for this test only, with the settings of the shared one.
func PostgresServer(t testing.TB) *Server {
	t.Helper()
	s := own(t, buildPostgres)
	s.DSN = postgresDSN(s.server, postgresDB)
	return s
}

// RedisServer starts a cluster of three nodes for this test only. Stop and Start act on all three.
func RedisServer(t testing.TB) *Server {
	t.Helper()
	return own(t, buildRedis)
}

// KafkaServer starts a broker for this test only, which needs some seconds.
func KafkaServer(t testing.TB) *Server {
	t.Helper()
	return own(t, buildKafka)
}

// Stop shuts the server down and returns when it has ended. Its data is kept.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.server.stop(); err != nil {
		t.Fatalf("servers: %v", err)
	}
}

// Start starts a stopped server, at the same address, and returns when it is ready.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.server.start(); err != nil {
		t.Fatalf("servers: %v", err)
	}
}

// own starts a server that ends with the test.
func own(t testing.TB, build builder) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server; `make test` runs it")
	}
	s, err := shared.launch(build)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("servers: %v", err)
		}
	})
	return &Server{Addrs: s.addrs, server: s}
}
