package frames_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"revoked/transport/frames"
)

func TestFrame_GoldenBytes(t *testing.T) {
	want, err := os.ReadFile("testdata/frame.golden")
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, payload := range []string{"", "a", "frame"} {
		if got, err = frames.Append(got, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestReadFrame_Malformed_ReturnsError(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, io.EOF},
		{"half a header", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"header without payload", []byte{0, 0, 0, 2}, io.ErrUnexpectedEOF},
		{"half a payload", []byte{0, 0, 0, 2, 1}, io.ErrUnexpectedEOF},
		{"one byte too long", []byte{0, 0x10, 0, 1}, frames.ErrTooLarge},
		{"four gigabytes", []byte{0xff, 0xff, 0xff, 0xff}, frames.ErrTooLarge},
		{"empty frame", []byte{0, 0, 0, 0}, nil},
	} {
		if _, err := frames.Read(bytes.NewReader(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// A peer that announces a megabyte but sends a byte must not cause a large allocation.
func TestReadFrame_LargeLength_AllocatesBytesSent(t *testing.T) {
	in := append([]byte{0, 0x10, 0, 0}, 1)
	got := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _ = frames.Read(bytes.NewReader(in))
		}
	})
	if got.AllocedBytesPerOp() > 128<<10 {
		t.Errorf("got %d bytes allocated, want at most 128 KiB", got.AllocedBytesPerOp())
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, seed := range []string{"", "\x00\x00\x00\x00", "\x00\x00\x00\x01a", "\x00\x10\x00\x01", "\xff\xff\xff\xff",
		"\x00\x00\x00\x05frame\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			before := len(in) - r.Len()
			frame, err := frames.Read(r)
			if err != nil {
				return
			}
			again, err := frames.Append(nil, frame)
			if err != nil || !bytes.Equal(again, in[before:len(in)-r.Len()]) {
				t.Fatalf("frame %x: got %x, %v, want the decoded bytes", frame, again, err)
			}
		}
	})
}
