// Package stream transfers request bodies and responses of unlimited length: NDJSON, server-sent
// events and snapshots.
//
// A [Stream] extends the connection's deadlines while bytes flow, and prevents a deadlock of
// full-duplex HTTP/2. A [LineReader] bounds the memory of a line. A [Spool] buffers a response, so
// that a client may send everything before it reads anything. Its memory and its temporary file are
// bounded. A [Budget] bounds the temporary files of all spools together.
package stream
