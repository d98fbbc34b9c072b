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

func (n *Nursery) loop() {
	defer close(n.ended)
	runtime.LockOSThread()
	for fork := range n.start {
		fork()
	}
	runtime.UnlockOSThread()
}

// Close ends the thread, and with it whatever it started that still runs. Nothing may be started after it.
func (n *Nursery) Close() {
	n.once.Do(func() { close(n.ended) })
	close(n.start)
	<-n.ended
}
