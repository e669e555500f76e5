package stream

import (
	"fmt"
	"strconv"
)

// TypeEventStream is the media type of server-sent events.
const TypeEventStream = "text/event-stream"

// AppendEvent appends a server-sent event whose data is one line. Id 0 appends no id field: a
// client that reconnects then resumes after an earlier event.
func AppendEvent(b []byte, id uint64, event string, data []byte) []byte {
	if id != 0 {
		b = append(b, "id: "...)
		b = strconv.AppendUint(b, id, 10)
		b = append(b, '\n')
	}
	b = append(append(b, "event: "...), event...)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

// AppendHeartbeat appends a comment that keeps the connection open and moves Last-Event-ID to id.
func AppendHeartbeat(b []byte, id uint64) []byte {
	return fmt.Appendf(b, ": heartbeat\nid: %d\n\n", id)
}
