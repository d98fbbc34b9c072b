package program

import "time"

// BeatEvery sets the time between heartbeats.
func (k *Kit) BeatEvery(d time.Duration) { k.every = d }
