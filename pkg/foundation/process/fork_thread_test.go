package process_test

import (
	"os/exec"
	"syscall"
	"testing"

	"vitrine.io/pkg/foundation/process"
)

func TestForkThread(t *testing.T) {
	t.Parallel()
	t.Run("close_ends_its_children", func(t *testing.T) {
		t.Parallel()
		held := newPipe(t)
		thread := process.NewForkThread()
		p := newProcess(t.TempDir(), thread, "exec sleep 1000 >"+held.name)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		held.opened(t)
		thread.Close() // the thread ends, and the kernel signals its child
		held.ended(t)
		<-p.Exited()
		if got := p.State(); got != "signal: killed" {
			t.Errorf("got state %q", got)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("close_before_the_first_child", func(t *testing.T) {
		t.Parallel()
		process.NewForkThread().Close()
	})
	t.Run("concurrent_starts", func(t *testing.T) {
		t.Parallel()
		thread := process.NewForkThread()
		errs := make(chan error)
		const starts = 8
		for range starts {
			go func() {
				cmd := exec.Command("true")
				cmd.SysProcAttr = process.Attr(nil, syscall.SIGKILL)
				err := thread.Start(cmd)
				if err == nil {
					err = cmd.Wait()
				}
				errs <- err
			}()
		}
		for range starts {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		thread.Close()
	})
}
