package child_test

import (
	"os/exec"
	"syscall"
	"testing"

	"vitrine.io/pkg/child"
)

func TestAClosedNurseryLeavesNoChild(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	nursery := child.NewNursery()
	p := process(t.TempDir(), nursery, "exec sleep 1000 >"+held.name)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	nursery.Close() // the thread ends, and the kernel tells its child
	held.ended(t)
	<-p.Exited()
	if got := p.State(); got != "signal: killed" {
		t.Errorf("got state %q", got)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestANurseryThatWasNeverUsedCloses(t *testing.T) {
	t.Parallel()
	child.NewNursery().Close()
}

func TestANurseryStartsManyAtOnce(t *testing.T) {
	t.Parallel()
	nursery := child.NewNursery()
	errs := make(chan error)
	const many = 8
	for range many {
		go func() {
			cmd := exec.Command("true")
			cmd.SysProcAttr = child.Attr(nil, syscall.SIGKILL)
			err := nursery.Start(cmd)
			if err == nil {
				err = cmd.Wait()
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	nursery.Close()
}
