package cluster_test

import (
	"bytes"
	"testing"

	"revoked/cluster"
	"revoked/internal/hostile"
)

// aliveMessage is an alive message as memberlist sends it.
func aliveMessage(extra ...hostile.MapEntry) []byte {
	return msg(hostile.TypeAlive, append([]hostile.MapEntry{
		field("Incarnation", 1), field("Node", "node2~1"), field("Addr", []byte{0xa4, 127, 0, 0, 1}), field("Port", 7946),
		field("Meta", []byte{0xc0}), field("Vsn", []byte{0xa6, 1, 5, 2, 0, 0, 0})}, extra...)...)
}

func TestInspect_UnknownForms_AreRejected(t *testing.T) {
	ping := msg(hostile.TypePing, field("SeqNo", 1))
	indirect := msg(hostile.TypeIndirectPing, field("SeqNo", 1), field("Nack", []byte{0xc3}))
	nested := aliveMessage(field("New", []byte{0x81, 0xa1, 'a', 1}))
	node := fields(field("Name", "node2~1"), field("State", 0), field("Vsn", []byte{0xa6, 1, 5, 2, 0, 0, 0}))
	states := append(msg(hostile.TypePushPull, field("Nodes", 2), field("UserStateLen", 0)), append(node, node...)...)
	for _, c := range []struct {
		name            string
		in              []byte
		packet, request bool
	}{
		{name: "ping", in: ping, packet: true, request: true},
		{name: "indirect ping", in: indirect, packet: true},
		{name: "alive", in: aliveMessage(), packet: true},
		{name: "alive with an unknown field", in: aliveMessage(field("New", 1)), packet: true},
		{name: "checksum", in: append([]byte{hostile.TypeCRC, 0, 0, 0, 0}, ping...), packet: true},
		{name: "ping and alive", in: compound(ping, aliveMessage()), packet: true},
		{name: "states", in: states, request: true},
		{name: "empty", in: nil},
		{name: "only a checksum", in: []byte{hostile.TypeCRC, 0, 0, 0, 0}},
		{name: "two pings", in: compound(ping, ping)},
		{name: "ping and indirect ping", in: compound(ping, indirect)},
		{name: "compound in a compound", in: compound(compound(ping))},
		{name: "checksum in a compound", in: compound(append([]byte{hostile.TypeCRC, 0, 0, 0, 0}, ping...))},
		{name: "empty part", in: compound(nil)},
		{name: "truncated compound", in: compound(ping)[:5]},
		{name: "bytes after a compound", in: append(compound(ping), 0)},
		{name: "bytes after a message", in: append(aliveMessage(), 0)},
		{name: "user message", in: []byte{hostile.TypeUser, 1, 2, 3}},
		{name: "compressed", in: bomb(t, 100)},
		{name: "field twice", in: aliveMessage(field("Port", 1))},
		{name: "nested map", in: nested},
		{name: "array instead of a map", in: []byte{hostile.TypePing, 0x91, 1}},
		{name: "map of 65,535", in: []byte{hostile.TypePing, 0xde, 0xff, 0xff}},
		{name: "long text", in: []byte{hostile.TypePing, 0x81, 0xdb, 0xff, 0xff, 0xff, 0xff}},
		{name: "negative number", in: msg(hostile.TypePing, field("SeqNo", []byte{0xd0, 0x80}))},
		{name: "short versions", in: aliveMessage()[:len(aliveMessage())-3]},
		{name: "state is missing", in: states[:len(states)-len(node)]},
		{name: "state too many", in: append(bytes.Clone(states), node...)},
		{name: "user state", in: append(msg(hostile.TypePushPull, field("Nodes", 0), field("UserStateLen", 1)), 0)},
		{name: "many nodes", in: msg(hostile.TypePushPull, field("Nodes", 1<<20))},
	} {
		if err := cluster.InspectPacket(c.in); (err == nil) != c.packet {
			t.Errorf("%s as a packet: got %v, want ok: %v", c.name, err, c.packet)
		}
		if err := cluster.InspectRequest(c.in); (err == nil) != c.request {
			t.Errorf("%s as a request: got %v, want ok: %v", c.name, err, c.request)
		}
	}
}

// FuzzInspect checks that no bytes make the inspection panic, and that a message that passes has a
// type that nodes send.
func FuzzInspect(f *testing.F) {
	ping := msg(hostile.TypePing, field("SeqNo", 1))
	f.Add(ping)
	f.Add(compound(ping, aliveMessage()))
	f.Add(append(msg(hostile.TypePushPull, field("Nodes", 1)), fields(field("Name", "a~b"))...))
	f.Add(bomb(f, 50))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		packet, request := cluster.InspectPacket(b), cluster.InspectRequest(b)
		if !bytes.Equal(b, before) {
			t.Error("got the message changed, want it unchanged")
		}
		if packet == nil && !bytes.ContainsAny(b[:1], "\x00\x01\x02\x03\x04\x05\x07\x0b\x0c") {
			t.Errorf("got packet of type %d passed", b[0])
		}
		if request == nil && b[0] != hostile.TypePing && b[0] != hostile.TypePushPull {
			t.Errorf("got request of type %d passed", b[0])
		}
	})
}
