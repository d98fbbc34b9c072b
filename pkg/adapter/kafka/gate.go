package kafka

import "sync"

// pauser lets everybody through, or holds everybody until it is opened again.
type pauser struct {
	mu     sync.Mutex
	opened chan struct{} // closed while the gate is open
	shut   bool
}

func newPauser() *pauser {
	opened := make(chan struct{})
	close(opened)
	return &pauser{opened: opened}
}

func (g *pauser) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.shut, g.opened = true, make(chan struct{})
	}
}

func (g *pauser) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		g.shut = false
		close(g.opened)
	}
}

// wait waits until the gate is open, or until stop is closed, and reports whether the caller may go on.
func (g *pauser) wait(stop <-chan struct{}) bool {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-stop: // checked first: an ended session begins nothing, open or not
		return false
	default:
	}
	select {
	case <-opened:
		return true
	case <-stop:
		return false
	}
}
