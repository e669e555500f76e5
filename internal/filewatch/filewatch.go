// Package filewatch reloads small files when their content changes, by polling. It compares
// content, not timestamps, because some tools replace a file without changing its size and time.
package filewatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// MaxSize is the largest size of a file, in bytes.
const MaxSize = 1 << 20

// ErrTooLarge is returned for a file of more than MaxSize bytes.
var ErrTooLarge = errors.New("file too large")

// Watcher loads a set of files. All methods may be called concurrently.
type Watcher struct {
	files []string
	load  func(content [][]byte) error

	mu     sync.Mutex // held while loading, so that the newest content wins
	loaded bool
	sum    [sha256.Size]byte // hash of the content loaded last
}

// New returns a watcher of files. load receives their contents, in the order of files. load must
// not retain the contents, which may include keys and are overwritten after the call. If load
// returns an error, the next Reload calls it again.
func New(load func(content [][]byte) error, files ...string) *Watcher {
	return &Watcher{load: load, files: files}
}

// Reload loads the files if their content differs from that of the last successful load. It reports
// whether it has loaded them.
func (w *Watcher) Reload() (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	content := make([][]byte, len(w.files))
	defer func() {
		for _, b := range content {
			clear(b)
		}
	}()
	h := sha256.New()
	for i, name := range w.files {
		if content[i], err = read(name); err != nil {
			return false, err
		}
		fmt.Fprintf(h, "%d\n", len(content[i]))
		h.Write(content[i])
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if w.loaded && sum == w.sum {
		return false, nil
	}
	if err := w.load(withoutMarks(content)); err != nil {
		return false, err
	}
	w.loaded, w.sum = true, sum
	return true, nil
}

// Watch reloads every interval until ctx ends. After each reload it calls observe with the results
// of Reload. An error with the same text as that of the previous reload is passed as nil.
func (w *Watcher) Watch(ctx context.Context, interval time.Duration, observe func(changed bool, err error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := w.Reload()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text == last {
			err = nil
		}
		last = text
		observe(changed, err)
	}
}

// withoutMarks returns the contents without the byte order mark that some editors write. Go's PEM
// parser would skip the first block after it.
func withoutMarks(content [][]byte) [][]byte {
	out := make([][]byte, len(content))
	for i, b := range content {
		out[i] = bytes.TrimPrefix(b, []byte("\ufeff"))
	}
	return out
}

// read returns the content of a file of at most MaxSize bytes. Unlike io.ReadAll, it leaves no
// other copies of the content in memory.
func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxSize {
		return nil, fmt.Errorf("%s: %w (got %d bytes, want at most %d)", name, ErrTooLarge, info.Size(), MaxSize)
	}
	return os.ReadFile(name)
}
