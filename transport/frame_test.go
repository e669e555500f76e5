package transport_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/hashicorp/raft"

	"revoked/transport"
)

func TestFrameBytesDoNotChange(t *testing.T) {
	want, err := os.ReadFile("testdata/frame.golden")
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, payload := range []string{"", "a", "frame"} {
		if got, err = transport.AppendFrame(got, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestReadFrame(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"a header without its payload", []byte{0, 0, 0, 2}, io.ErrUnexpectedEOF},
		{"half a payload", []byte{0, 0, 0, 2, 1}, io.ErrUnexpectedEOF},
		{"one byte more than allowed", []byte{0, 0x10, 0, 1}, transport.ErrTooLarge},
		{"four gigabytes", []byte{0xff, 0xff, 0xff, 0xff}, transport.ErrTooLarge},
		{"an empty frame", []byte{0, 0, 0, 0}, nil},
	} {
		if _, err := transport.ReadFrame(bytes.NewReader(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// A peer that announces a megabyte and sends a byte costs no megabyte.
func TestReadFrameAllocatesWhatCame(t *testing.T) {
	in := append([]byte{0, 0x10, 0, 0}, 1)
	got := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _ = transport.ReadFrame(bytes.NewReader(in))
		}
	})
	if got.AllocedBytesPerOp() > 128<<10 {
		t.Errorf("got %d bytes allocated, want at most 128 KiB", got.AllocedBytesPerOp())
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, seed := range []string{"", "\x00\x00\x00\x00", "\x00\x00\x00\x01a", "\x00\x10\x00\x01", "\xff\xff\xff\xff", "\x00\x00\x00\x05frame\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			before := len(in) - r.Len()
			frame, err := transport.ReadFrame(r)
			if err != nil {
				return
			}
			again, err := transport.AppendFrame(nil, frame)
			if err != nil || !bytes.Equal(again, in[before:len(in)-r.Len()]) {
				t.Fatalf("frame %x encodes to %x, %v", frame, again, err)
			}
		}
	})
}

func TestSplitAddress(t *testing.T) {
	for _, c := range []struct {
		name, in, node, hostport string
		want                     error
	}{
		{"IPv4", "node1@127.0.0.1:9443", "node1", "127.0.0.1:9443", nil},
		{"IPv6", "n-1.x_Y@[::1]:1", "n-1.x_Y", "[::1]:1", nil},
		{"a host name", "a@db.example:65535", "a", "db.example:65535", nil},
		{"no name", "127.0.0.1:9443", "", "", transport.ErrBadAddress},
		{"an empty name", "@127.0.0.1:9443", "", "", transport.ErrBadNodeID},
		{"a name with a slash", "a/b@h:1", "", "", transport.ErrBadNodeID},
		{"a name that is a folder", "..@h:1", "", "", transport.ErrBadNodeID},
		{"no port", "a@h", "", "", transport.ErrBadAddress},
		{"port zero", "a@h:0", "", "", transport.ErrBadAddress},
		{"a port by name", "a@h:https", "", "", transport.ErrBadAddress},
		{"no host", "a@:1", "", "", transport.ErrBadAddress},
		{"two names", "a@b@h:1", "", "", transport.ErrBadAddress},
	} {
		node, hostport, err := transport.SplitAddress(raft.ServerAddress(c.in))
		if node != c.node || hostport != c.hostport || !errors.Is(err, c.want) {
			t.Errorf("%s: got %q, %q, %v, want %q, %q, %v", c.name, node, hostport, err, c.node, c.hostport, c.want)
		}
	}
}

func FuzzSplitAddress(f *testing.F) {
	for _, seed := range []string{"node1@127.0.0.1:9443", "a@[::1]:1", "@", "a@h:0", "a@b@h:1", "a@[::1%25lo]:1", "\x00@h:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		node, hostport, err := transport.SplitAddress(raft.ServerAddress(in))
		if err != nil {
			return
		}
		if err := transport.CheckNodeID(node); err != nil {
			t.Errorf("accepted node id: %v", err)
		}
		if err := transport.CheckHostPort(hostport); err != nil {
			t.Errorf("accepted address: %v", err)
		}
		if got := transport.RaftAddress(node, hostport); string(got) != in {
			t.Errorf("got %q back, want %q", got, in)
		}
	})
}
