// Package stream carries request bodies and answers that have no bounded length: NDJSON,
// server-sent events and snapshots.
//
// A [Stream] extends the connection's deadlines while bytes flow, and keeps full-duplex HTTP/2
// from deadlocking. A [LineReader] bounds the memory of a line. A [Spool] bounds memory and disk of
// an answer: within these bounds, a client may send everything before it reads anything. A [Budget]
// bounds the disk of all spools.
package stream
