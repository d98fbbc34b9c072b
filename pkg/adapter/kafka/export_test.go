package kafka

import "time"

// Patience sets how long the reader waits for the next record.
func (r *Reader) Patience(d time.Duration) { r.patience = d }
