package codec

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
	"time"

	"vitrine.io/pkg/pipeline"
)

const (
	killersAge  = 10 * time.Minute // a killer is forgotten so long after its last kill
	mostKillers = 256              // remembered; the one whose kill is longest ago makes room
)

// killers remembers what has killed codecs, for pictures that many products share. It may be used concurrently.
type killers struct {
	now func() time.Time
	mu  sync.Mutex
	all map[killer]time.Time // the last kill
}

// killer is a source together with what was to be made of it: another pipeline may get along with it.
type killer [sha256.Size]byte

func newKiller(source []byte, spec pipeline.Spec) (k killer) {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(spec) // neither can fail
	_, _ = h.Write(source)
	h.Sum(k[:0])
	return k
}

// known reports whether the picture has killed a codec lately. As long as nothing has killed any, it is not even hashed.
func (k *killers) known(source []byte, spec pipeline.Spec) bool {
	k.mu.Lock()
	none := len(k.all) == 0
	k.mu.Unlock()
	if none {
		return false
	}
	who := newKiller(source, spec)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	_, known := k.all[who]
	return known
}

// remember notes a kill.
func (k *killers) remember(source []byte, spec pipeline.Spec) {
	who := newKiller(source, spec)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	if _, known := k.all[who]; !known && len(k.all) >= mostKillers {
		var first killer
		for other, last := range k.all {
			if was, ok := k.all[first]; !ok || last.Before(was) {
				first = other
			}
		}
		delete(k.all, first)
	}
	k.all[who] = k.now()
}

// forget drops those whose last kill is long ago.
func (k *killers) forget() {
	for who, last := range k.all {
		if k.now().Sub(last) >= killersAge {
			delete(k.all, who)
		}
	}
}
