package process

import (
	"os/exec"
	"runtime"
	"sync"
)

// ForkThread starts every child from one OS thread that lives until Close. It may be used concurrently.
type ForkThread struct {
	once  sync.Once
	start chan func()
	ended chan struct{}
}

// NewForkThread returns a ForkThread. Its thread begins with the first child.
func NewForkThread() *ForkThread {
	return &ForkThread{start: make(chan func()), ended: make(chan struct{})}
}

// Start calls cmd.Start on the thread and returns its error. Set cmd.SysProcAttr with [Attr] before.
func (f *ForkThread) Start(cmd *exec.Cmd) error {
	f.once.Do(func() { go f.loop() })
	answer := make(chan error, 1)
	f.start <- func() { answer <- cmd.Start() }
	return <-answer
}

// loop never unlocks its thread: the Go runtime ends a thread whose goroutine ends locked, and its children go with it.
func (f *ForkThread) loop() {
	runtime.LockOSThread()
	if onMainThread() { // which cannot end: hold it until Close, so that another thread takes over
		go f.loop()
		<-f.ended
		runtime.UnlockOSThread()
		return
	}
	defer close(f.ended)
	for fork := range f.start {
		fork()
	}
}

// Close ends the thread, and with it every running child that asked for a signal (Linux). It must be called once, and
// nothing may be started after it.
func (f *ForkThread) Close() {
	f.once.Do(func() { close(f.ended) })
	close(f.start)
	<-f.ended
}
