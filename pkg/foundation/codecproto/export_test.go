package codecproto

// The frames, and the child's side, for tests and fuzzing.
var (
	ReadFrame    = readFrame
	WriteFrame   = writeFrame
	WriteAnswer  = writeAnswer
	WriteFailure = writeFailure
)

// FirstRead is what is allocated before any of a payload has arrived, in bytes.
const FirstRead = firstRead
