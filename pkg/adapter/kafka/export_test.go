package kafka

import "time"

// Timeout sets how long the reader waits for the next record.
func (r *Reader) Timeout(d time.Duration) { r.timeout = d }
