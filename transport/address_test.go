package transport_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"revoked/transport"
	"revoked/transport/pki"
)

func TestSplitAddress_Malformed_ReturnsError(t *testing.T) {
	for _, c := range []struct {
		name, in, node, hostport string
		want                     error
	}{
		{"IPv4", "node1@127.0.0.1:9443", "node1", "127.0.0.1:9443", nil},
		{"IPv6", "n-1.x_Y@[::1]:1", "n-1.x_Y", "[::1]:1", nil},
		{"host name", "a@db.example:65535", "a", "db.example:65535", nil},
		{"no node", "127.0.0.1:9443", "", "", transport.ErrBadAddress},
		{"empty node", "@127.0.0.1:9443", "", "", pki.ErrBadNodeID},
		{"node with a slash", "a/b@h:1", "", "", pki.ErrBadNodeID},
		{"node ..", "..@h:1", "", "", pki.ErrBadNodeID},
		{"no port", "a@h", "", "", transport.ErrBadAddress},
		{"port zero", "a@h:0", "", "", transport.ErrBadAddress},
		{"named port", "a@h:https", "", "", transport.ErrBadAddress},
		{"no host", "a@:1", "", "", transport.ErrBadAddress},
		{"two nodes", "a@b@h:1", "", "", transport.ErrBadAddress},
	} {
		node, hostport, err := transport.SplitAddress(raft.ServerAddress(c.in))
		if node != c.node || hostport != c.hostport || !errors.Is(err, c.want) {
			t.Errorf("%s: got %q, %q, %v, want %q, %q, %v", c.name, node, hostport, err, c.node, c.hostport, c.want)
		}
	}
}

func FuzzSplitAddress(f *testing.F) {
	for _, seed := range []string{"node1@127.0.0.1:9443", "a@[::1]:1", "@", "a@h:0", "a@b@h:1", "a@[::1%25lo]:1",
		"\x00@h:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		node, hostport, err := transport.SplitAddress(raft.ServerAddress(in))
		if err != nil {
			return
		}
		if err := pki.CheckNodeID(node); err != nil {
			t.Errorf("node id: got %v, want nil", err)
		}
		if err := transport.CheckHostPort(hostport); err != nil {
			t.Errorf("address: got %v, want nil", err)
		}
		if got := transport.RaftAddress(node, hostport); string(got) != in {
			t.Errorf("got %q, want %q", got, in)
		}
	})
}
