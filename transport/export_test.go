package transport

// Exports for the tests of the decoders.
var (
	ReadHello     = readHello
	CheckHostPort = checkHostPort
)
