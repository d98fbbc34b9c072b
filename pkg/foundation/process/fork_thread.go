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

// NewForkThread returns a ForkThread. Its thread starts with the first child.
func NewForkThread() *ForkThread {
	return &ForkThread{start: make(chan func()), ended: make(chan struct{})}
}

// Start calls cmd.Start on the thread and returns its error. Set cmd.SysProcAttr with [Attr] before.
func (f *ForkThread) Start(cmd *exec.Cmd) error {
	f.once.Do(func() { go f.loop() })
	result := make(chan error, 1)
	f.start <- func() { result <- cmd.Start() }
	return <-result
}

// loop never unlocks its thread: the Go runtime ends a thread whose goroutine returns while it is locked, and the kernel then
// signals the thread's children.
func (f *ForkThread) loop() {
	runtime.LockOSThread()
	if onMainThread() { // it does not end before the process: occupy it until Close, so that loop gets another thread
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

// Close ends the thread. On Linux every running child whose Attr has an orphan signal receives it. Close must be called
// exactly once, and Start must not be called after it.
func (f *ForkThread) Close() {
	f.once.Do(func() { close(f.ended) })
	close(f.start)
	<-f.ended
}
