package child

import (
	"os/exec"
	"runtime"
	"sync"
)

// Nursery starts every child from one OS thread that lives as long as the nursery does. It may be used concurrently.
type Nursery struct {
	once  sync.Once
	start chan func()
	ended chan struct{}
}

// NewNursery returns a nursery. Its thread begins with the first child.
func NewNursery() *Nursery {
	return &Nursery{start: make(chan func()), ended: make(chan struct{})}
}

// Start is cmd.Start on the nursery's thread, with cmd in a process group of its own; set cmd.SysProcAttr with Attr before.
func (n *Nursery) Start(cmd *exec.Cmd) error {
	n.once.Do(func() { go n.loop() })
	answer := make(chan error, 1)
	n.start <- func() { answer <- cmd.Start() }
	return <-answer
}

// loop never unlocks its thread: the Go runtime ends a thread whose goroutine ends locked, and its children go with it.
func (n *Nursery) loop() {
	runtime.LockOSThread()
	if onMainThread() { // which cannot end: hold it until the nursery ends, so that another thread takes over
		go n.loop()
		<-n.ended
		runtime.UnlockOSThread()
		return
	}
	defer close(n.ended)
	for fork := range n.start {
		fork()
	}
}

// Close ends the thread, and with it whatever it started that still runs and asked for a signal (Linux). Nothing may be
// started after it.
func (n *Nursery) Close() {
	n.once.Do(func() { close(n.ended) })
	close(n.start)
	<-n.ended
}
