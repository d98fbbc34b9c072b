package codec

import (
	"time"

	"vitrine.io/pkg/pipeline"
)

// The wire, for its own tests and fuzzing.
var (
	ReadFrame    = readFrame
	WriteFrame   = writeFrame
	ReadAnswer   = readAnswer
	WriteAnswer  = writeAnswer
	WriteRequest = writeRequest
	WriteFailure = writeFailure
)

// FirstRead is what is allocated on the word of a length alone.
const FirstRead = firstRead

// The memory of killers and the clock of the slots, for tests without processes.
type (
	Killers  = killers
	BusyTime = busyTime
)

// MostKillers is how many killers are remembered.
const MostKillers = mostKillers

// NewBusyTime returns the clock of so many slots.
var NewBusyTime = newBusyTime

// NewKillers returns an empty memory.
func NewKillers(now func() time.Time) *killers {
	return &killers{now: now, all: map[killer]time.Time{}}
}

func (k *killers) Known(source string) bool { return k.known([]byte(source), pipeline.Default().Spec) }
func (k *killers) Remember(source string)   { k.remember([]byte(source), pipeline.Default().Spec) }
func (b *busyTime) Add(n int)               { b.add(n) }
func (b *busyTime) Total() float64          { return b.total() }
func (b *busyTime) Utilization() float64    { return b.utilization() }
