package stream_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"revoked/api/stream"
)

func TestLineReader_LongLine_IsSkipped(t *testing.T) {
	long := strings.Repeat("x", 11)
	text := "one\r\n\n" + long + "\n" + strings.Repeat("y", 100) + "\n0123456789\nlast"
	r := stream.NewLineReader(iotest.OneByteReader(strings.NewReader(text)), 10)
	if err := r.WaitFirst(); err != nil {
		t.Errorf("WaitFirst: got %v, want nil", err)
	}
	for i, want := range []struct {
		line    string
		tooLong bool
	}{{"one", false}, {"", false}, {long, true}, {"", true}, {"0123456789", false}, {"last", false}} {
		line, tooLong, err := r.Next()
		if err != nil || tooLong != want.tooLong || !tooLong && string(line) != want.line || r.Line() != i+1 {
			t.Errorf("line %d: got %q, too long %t, number %d, error %v, want %q, %t",
				i+1, line, tooLong, r.Line(), err, want.line, want.tooLong)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestLineReader_PartialLine_IsDropped(t *testing.T) {
	r := stream.NewLineReader(io.MultiReader(strings.NewReader("whole\nhal"), iotest.ErrReader(io.ErrUnexpectedEOF)), 10)
	if line, _, err := r.Next(); string(line) != "whole" || err != nil {
		t.Errorf("got %q, error %v, want the whole line", line, err)
	}
	if line, _, err := r.Next(); line != nil || err != io.ErrUnexpectedEOF {
		t.Errorf("got %q, error %v, want no line and the error of the stream", line, err)
	}
}

func TestLineReader_BrokenStream_FailsWaitFirst(t *testing.T) {
	if err := stream.NewLineReader(strings.NewReader(""), 10).WaitFirst(); err != nil {
		t.Errorf("empty stream: got %v, want nil", err)
	}
	if err := stream.NewLineReader(iotest.ErrReader(io.ErrUnexpectedEOF), 10).WaitFirst(); err != io.ErrUnexpectedEOF {
		t.Errorf("broken stream: got %v, want its error", err)
	}
}

func TestBlank_Whitespace_IsBlank(t *testing.T) {
	for line, want := range map[string]bool{"": true, " \t\r": true, "x": false, " {} ": false, "\v": false} {
		if got := stream.Blank([]byte(line)); got != want {
			t.Errorf("%q: got %t, want %t", line, got, want)
		}
	}
}

// LineReader returns the same lines as bytes.Split, unless a line is longer than the limit.
func FuzzLineReader(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb", "a\r\n\r\nb\r", "0123456789abcdef\nx\n", "\r\n\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 14 // with two bytes of a line end, the smallest buffer of bufio
		r := stream.NewLineReader(iotest.HalfReader(bytes.NewReader(in)), limit)
		want := bytes.Split(in, []byte("\n"))
		if len(want[len(want)-1]) == 0 {
			want = want[:len(want)-1]
		}
		for i, w := range want {
			line, tooLong, err := r.Next()
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			w = bytes.TrimSuffix(w, []byte("\r"))
			if tooLong != (len(w) > limit) || !tooLong && !bytes.Equal(line, w) {
				t.Errorf("line %d: got %q, too long %t, want %q", i+1, line, tooLong, w)
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Errorf("got %v, want io.EOF", err)
		}
	})
}

func TestLineReader_ByteOrderMark_IsSkippedOnce(t *testing.T) {
	for in, want := range map[string][]string{
		"\ufeff{}\n{}\n": {"{}", "{}"}, "\ufeff{}": {"{}"}, "\ufeff": nil, "\ufeff\n{}": {"", "{}"},
		"{}\n\ufeff{}": {"{}", "\ufeff{}"}, "\xef\xbb": {"\xef\xbb"}, "\xef": {"\xef"}, "": nil,
	} {
		l := stream.NewLineReader(iotest.OneByteReader(strings.NewReader(in)), 10)
		var got []string
		for {
			line, _, err := l.Next()
			if err != nil {
				break
			}
			got = append(got, string(line))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
