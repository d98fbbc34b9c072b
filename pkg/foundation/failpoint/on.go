//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// variable is the environment variable that names the steps.
const variable = "VITRINE_FAILPOINT"

// armed is the plan of the environment, read at the first step.
var armed = sync.OnceValue(func() *plan {
	p, err := parse(os.Getenv(variable))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", variable, err)) // otherwise a crash test without a crash would pass
	}
	return p
})

// Hit kills or stops the process if the plan says so for this step.
func Hit(name Name) {
	switch armed().count(name) {
	case syscall.SIGKILL:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // no further step runs
	case syscall.SIGSTOP:
		// Another thread may receive SIGSTOP while this one still runs, so this one waits for SIGCONT.
		resumed := make(chan os.Signal, 1)
		signal.Notify(resumed, syscall.SIGCONT)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-resumed
		signal.Stop(resumed)
	}
}

// plan holds the armed steps.
type plan struct {
	mu    sync.Mutex
	steps map[Name]*step
}

type step struct {
	left   int // hits until the signal
	signal syscall.Signal
}

// count counts a hit and returns the signal to send, or 0.
func (p *plan) count(name Name) syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.steps[name]
	if s == nil {
		return 0
	}
	if s.left--; s.left != 0 {
		return 0
	}
	return s.signal
}

// parse reads steps of the form name[:n][=stop], separated by commas.
func parse(text string) (*plan, error) {
	p := &plan{steps: map[Name]*step{}}
	if text == "" {
		return p, nil
	}
	for _, item := range strings.Split(text, ",") {
		rest, word, has := strings.Cut(item, "=")
		s := &step{left: 1, signal: syscall.SIGKILL}
		if has && word != "stop" {
			return nil, fmt.Errorf("%q is not stop", word)
		} else if has {
			s.signal = syscall.SIGSTOP
		}
		name, times, has := strings.Cut(rest, ":")
		if has {
			n, err := strconv.Atoi(times)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q is not the number of a hit", times)
			}
			s.left = n
		}
		if name == "" {
			return nil, fmt.Errorf("%q names no step", item)
		}
		p.steps[Name(name)] = s
	}
	return p, nil
}
