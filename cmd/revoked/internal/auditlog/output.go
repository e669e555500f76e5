package auditlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"revoked"
)

// An output is the destination of the lines. Only Run calls its methods, except reopen.
type output interface {
	write(lines []byte) error
	last() revoked.Position // position of the last entry; zero if there is none
	reopen()
	close()
}

// A stream is an output that cannot be read, such as standard error.
type stream struct{ to io.Writer }

func (s *stream) write(lines []byte) error {
	_, err := s.to.Write(lines)
	return err
}

func (s *stream) last() revoked.Position { return revoked.Position{} }
func (s *stream) reopen()                {}
func (s *stream) close()                 {}

// maxLine bounds an entry in the file, in bytes.
const maxLine = 64 << 10

// A file is an output that continues after its last line.
type file struct {
	path    string
	f       *os.File // nil after an error, until the next open
	rotated atomic.Bool
}

func openFile(path string) (*file, error) {
	f := &file{path: path}
	return f, f.open()
}

// open opens the file. It terminates a line that an earlier process did not finish.
func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit_log: %w", err)
	}
	f.f = opened
	if tail := f.tail(); len(tail) > 0 && tail[len(tail)-1] != '\n' {
		if _, err := opened.WriteString("\n"); err != nil {
			f.close()
			return fmt.Errorf("audit_log: %w", err)
		}
	}
	return nil
}

// tail returns the end of the file, with at least the whole last line. For a device or a pipe, it
// returns nil.
func (f *file) tail() []byte {
	info, err := f.f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	n := min(info.Size(), 2*maxLine)
	b := make([]byte, n)
	if _, err := f.f.ReadAt(b, info.Size()-n); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return b
}

// last returns the id of the last complete entry. It skips lines of an earlier process that are not
// entries.
func (f *file) last() revoked.Position {
	if f.f == nil {
		return revoked.Position{}
	}
	lines := bytes.Split(f.tail(), []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		var line struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(lines[i], &line) != nil {
			continue
		}
		if p, err := revoked.ParsePosition(line.ID); err == nil && p.Era != "" {
			return p
		}
	}
	return revoked.Position{}
}

// write appends lines. After an error some of them may be in the file, and the caller writes all of
// them again.
func (f *file) write(lines []byte) error {
	if f.rotated.Swap(false) {
		f.close()
	}
	if f.f == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if _, err := f.f.Write(lines); err != nil {
		f.close()
		return fmt.Errorf("audit_log: %w", err)
	}
	return nil
}

func (f *file) reopen() { f.rotated.Store(true) }

func (f *file) close() {
	if f.f != nil {
		_ = f.f.Close() // every write has reached the system already
	}
	f.f = nil
}
