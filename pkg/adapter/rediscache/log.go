package rediscache

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// BridgeLogger sends the messages of go-redis (failed dials, nodes that it gives up) to log, as warnings. go-redis has
// one logger per process, so a program calls BridgeLogger once, in main, before New.
func BridgeLogger(log *zap.Logger) { redis.SetLogger(bridge{log.Named("go-redis")}) }

type bridge struct{ log *zap.Logger }

// Printf is go-redis' logging interface.
func (b bridge) Printf(_ context.Context, format string, args ...any) {
	b.log.Warn(fmt.Sprintf(format, args...))
}
