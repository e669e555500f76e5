package transport

// For the tests of the decoders, which are nobody's business outside.
var (
	AppendFrame   = appendFrame
	ReadFrame     = readFrame
	CheckHostPort = checkHostPort
)
