package codec

import (
	"bufio"
	"io"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

const (
	lineLength = 2 << 10                // bytes of a line that are logged
	lineBurst  = 200                    // lines at once: enough for a Go panic with its stack
	linePeriod = 100 * time.Millisecond // between lines after a burst
)

// logStderr logs what a child writes to stderr, line by line, until every process that has it open has closed it. Lines
// above the rate are not logged, but are still read, because otherwise the child would block.
func (p *Pool) logStderr(stderr io.ReadCloser, pid int) {
	defer func() { _ = stderr.Close() }()
	lines := bufio.NewReaderSize(stderr, lineLength)
	log := p.log.With(zap.Int("pid", pid))
	limiter := rate.NewLimiter(rate.Every(linePeriod), lineBurst)
	dropped := 0
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			break
		}
		switch text := string(line); {
		case !limiter.AllowN(p.now(), 1):
			dropped++
			p.metrics.dropped.Inc()
		case text != "":
			log.Warn("codec stderr", zap.String("line", text))
		}
		for more && err == nil { // the rest of a long line
			_, more, err = lines.ReadLine()
		}
	}
	if dropped > 0 {
		log.Warn("codec stderr lines dropped", zap.Int("lines", dropped))
	}
}
