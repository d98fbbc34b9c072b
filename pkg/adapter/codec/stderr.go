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
	lineBurst  = 200                    // lines at once: a Go panic with its stack passes whole
	linePeriod = 100 * time.Millisecond // between lines after a burst
)

// logStderr logs what a child writes to stderr, line by line, until the child and all it started have closed it. A child that
// writes without end is read without end, or it would block, but not logged.
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
			log.Warn("codec says", zap.String("line", text))
		}
		for more && err == nil { // the rest of a long line
			_, more, err = lines.ReadLine()
		}
	}
	if dropped > 0 {
		log.Warn("codec said more than is logged", zap.Int("lines", dropped))
	}
}
