package stream_test

import (
	"testing"

	"revoked/api/stream"
)

func TestAppendEvent_Fields_AreFormatted(t *testing.T) {
	got := string(stream.AppendEvent(nil, "e.7", "revoked", []byte(`{"a":1}`)))
	if want := "id: e.7\nevent: revoked\ndata: {\"a\":1}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = string(stream.AppendEvent(nil, "", "revoked", []byte("{}")))
	if want := "event: revoked\ndata: {}\n\n"; got != want {
		t.Errorf("without id: got %q, want %q", got, want)
	}
	if got, want := string(stream.AppendHeartbeat(nil, "e.7")), ": heartbeat\nid: e.7\n\n"; got != want {
		t.Errorf("heartbeat: got %q, want %q", got, want)
	}
}
