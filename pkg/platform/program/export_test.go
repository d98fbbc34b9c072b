package program

import "time"

// SetHeartbeatInterval sets the time between heartbeats.
func (k *App) SetHeartbeatInterval(d time.Duration) { k.heartbeatInterval = d }
