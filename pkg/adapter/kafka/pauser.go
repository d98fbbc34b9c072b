package kafka

import "sync"

// pauser makes its callers wait between pause and resume.
type pauser struct {
	mu      sync.Mutex
	resumed chan struct{} // closed unless paused
	paused  bool
}

func newPauser() *pauser {
	resumed := make(chan struct{})
	close(resumed)
	return &pauser{resumed: resumed}
}

func (p *pauser) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.paused {
		p.paused, p.resumed = true, make(chan struct{})
	}
}

func (p *pauser) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		p.paused = false
		close(p.resumed)
	}
}

// wait waits until p is not paused and returns true. If stop is closed before, it returns false.
func (p *pauser) wait(stop <-chan struct{}) bool {
	p.mu.Lock()
	resumed := p.resumed
	p.mu.Unlock()
	select {
	case <-stop: // checked first, because nothing is started after the end of a session
		return false
	default:
	}
	select {
	case <-resumed:
		return true
	case <-stop:
		return false
	}
}
