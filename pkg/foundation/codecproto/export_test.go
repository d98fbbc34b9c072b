package codecproto

// Functions for frames and the child's side, for tests and fuzzing.
var (
	ReadFrame    = readFrame
	WriteFrame   = writeFrame
	WriteAnswer  = writeAnswer
	WriteFailure = writeFailure
)

// FirstRead is the number of bytes that is allocated before any byte of a payload has arrived.
const FirstRead = firstRead
