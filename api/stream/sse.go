package stream

// TypeEventStream is the media type of server-sent events.
const TypeEventStream = "text/event-stream"

// AppendEvent appends a server-sent event whose data is one line. If id is empty, the event has no
// id field: a client that reconnects resumes after an earlier event.
func AppendEvent(b []byte, id, event string, data []byte) []byte {
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	b = append(append(b, "event: "...), event...)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

// AppendHeartbeat appends a comment that keeps the connection open and moves Last-Event-ID to id.
func AppendHeartbeat(b []byte, id string) []byte {
	return append(append(append(b, ": heartbeat\nid: "...), id...), "\n\n"...)
}
