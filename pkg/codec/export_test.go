package codec

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
