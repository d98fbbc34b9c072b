package program

import "time"

// BeatEvery sets the time between heartbeats.
func (k *App) BeatEvery(d time.Duration) { k.every = d }
