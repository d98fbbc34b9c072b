package postgres

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errNoCancel is the error of a cancel request, which pgx ignores.
var errNoCancel = errors.New("statements are not cancelled on the server")

// neverCancel keeps pgx from sending cancel requests for the connection that is about to be made with this configuration.
//
// pgx sends one whenever it gives up a connection, for example when a deadline passes. A COMMIT that waits for a synchronous
// standby must not be cancelled: Postgres then ends the wait and shows the transaction to all others, though a failover
// would undo it. The relay would publish its events, and a repeated request would get its saved response. Without the
// request the transaction stays invisible until the standby has it. Other statements end at their time limit on the server.
func neverCancel(conn *pgx.ConnConfig) {
	var connected atomic.Bool
	dial := conn.DialFunc
	conn.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connected.Load() { // pgx dials again only to cancel
			return nil, errNoCancel
		}
		return dial(ctx, network, addr)
	}
	conn.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		connected.Store(true)
		return nil
	}
}
