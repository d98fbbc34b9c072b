package relay

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config sets the size and the rate of the relay's batches.
type Config struct {
	Batch  int           `env:"BATCH" envDefault:"500" desc:"maximum messages of one batch"`
	Rate   int           `env:"RATE" envDefault:"2000" desc:"maximum messages a second; bursts of two seconds, at least a batch; 0: no limit"`
	Poll   time.Duration `env:"POLL" envDefault:"150ms" desc:"pause between batches without new messages, plus or minus a third"`
	Sample time.Duration `env:"SAMPLE" envDefault:"5s" desc:"interval of the measurement of the outbox's depth"`
}

// The bounds of Config: a batch must end within five seconds.
const (
	maxBatch  = 10_000
	minPoll   = 10 * time.Millisecond
	maxPoll   = time.Minute
	minSample = 100 * time.Millisecond
)

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Batch >= 1 && c.Batch <= maxBatch, "BATCH", "%d is not between 1 and %d", c.Batch, maxBatch)
	check.Range(c.Rate >= 0, "RATE", "%d is less than 0", c.Rate)
	check.Range(c.Poll >= minPoll && c.Poll <= maxPoll, "POLL", "%s is not between %s and %s", c.Poll, minPoll, maxPoll)
	check.Range(c.Sample >= minSample, "SAMPLE", "%s is less than %s", c.Sample, minSample)
	return check.Fields()
}
