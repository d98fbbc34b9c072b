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

// variable is where the steps to fail at come from.
const variable = "VITRINE_FAILPOINT"

// armed is what the environment asks for, read at the first step.
var armed = sync.OnceValue(func() *plan {
	p, err := parse(os.Getenv(variable))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", variable, err)) // a test that does not crash where it says would show nothing
	}
	return p
})

// Hit ends the process, or stops it, if that was asked for at this step.
func Hit(name Name) {
	switch armed().count(name) {
	case kill:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // not one step further
	case stop:
		// Another thread may take the signal, and this one would run on for a moment: so it waits to be told.
		resumed := make(chan os.Signal, 1)
		signal.Notify(resumed, syscall.SIGCONT)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-resumed
		signal.Stop(resumed)
	}
}

// action is what a step does.
type action int

const (
	nothing action = iota
	kill
	stop
)

// plan is which hit of which step does what.
type plan struct {
	mu    sync.Mutex
	steps map[Name]*step
}

type step struct {
	left   int // hits until it acts
	action action
}

// count notes a hit and says what follows.
func (p *plan) count(name Name) action {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.steps[name]
	if s == nil {
		return nothing
	}
	if s.left--; s.left != 0 {
		return nothing
	}
	return s.action
}

// parse reads "name[:n][=stop]", several separated by commas.
func parse(text string) (*plan, error) {
	p := &plan{steps: map[Name]*step{}}
	if text == "" {
		return p, nil
	}
	for _, one := range strings.Split(text, ",") {
		rest, word, has := strings.Cut(one, "=")
		s := &step{left: 1, action: kill}
		if has && word != "stop" {
			return nil, fmt.Errorf("%q is not stop", word)
		} else if has {
			s.action = stop
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
			return nil, fmt.Errorf("%q names no step", one)
		}
		p.steps[Name(name)] = s
	}
	return p, nil
}
