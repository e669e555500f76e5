package stream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// TypeNDJSON is the media type of newline-delimited JSON.
const TypeNDJSON = "application/x-ndjson"

// bom is the byte order mark that some editors and shells write before UTF-8 text.
const bom = "\ufeff"

// A LineReader splits a stream into lines of bounded length. LF, CR LF or the end of the stream
// ends a line. A byte order mark before the first line is skipped.
type LineReader struct {
	br    *bufio.Reader
	limit int
	n     int
}

// NewLineReader returns a reader of lines of at most limit bytes.
func NewLineReader(r io.Reader, limit int) *LineReader {
	return &LineReader{br: bufio.NewReaderSize(r, limit+2), limit: limit}
}

// Line returns the number of the current line; the first is 1.
func (l *LineReader) Line() int { return l.n }

// WaitFirst blocks until the stream has a byte or ends. It returns nil at the end of the stream.
func (l *LineReader) WaitFirst() error {
	_, err := l.br.Peek(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Next returns the next line without its line end. The line is valid until the next call. If
// tooLong is set, the line exceeded the limit and was skipped. The error is io.EOF after the last
// line, or the error of the stream. After an error of the stream, a partial line is dropped.
func (l *LineReader) Next() (line []byte, tooLong bool, err error) {
	if l.n == 0 { // RFC 8259 section 8.1: a reader may ignore a byte order mark
		l.skipMark()
	}
	line, err = l.br.ReadSlice('\n')
	l.n++
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = l.br.ReadSlice('\n')
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0 && !tooLong) {
		return nil, false, err
	}
	if tooLong {
		return nil, true, nil
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	return line, len(line) > l.limit, nil
}

// skipMark skips a byte order mark. It waits for more than one byte only if the first byte may
// begin a mark.
func (l *LineReader) skipMark() {
	if first, _ := l.br.Peek(1); string(first) != bom[:1] {
		return
	}
	if mark, _ := l.br.Peek(len(bom)); string(mark) == bom {
		_, _ = l.br.Discard(len(bom))
	}
}

// Blank reports whether a line has only spaces, tabs and carriage returns.
func Blank(line []byte) bool { return len(bytes.Trim(line, " \t\r")) == 0 }
