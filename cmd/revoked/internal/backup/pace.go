package backup

import (
	"context"
	"io"
	"time"

	"revoked/internal/retry"
)

const (
	stride  = 4 << 20 // bytes between two rests
	maxRest = 5 * time.Second
)

// A pacer rests for as long as it worked, so that a backup uses a disk and a processor for about
// half of the time. Before each rest it syncs what was written. A single sync at the end could
// delay the log on the same disk for seconds.
type pacer struct {
	ctx   context.Context
	sync  func() error // may be nil
	began time.Time    // when the work since the last rest began
	bytes int
}

func (p *pacer) moved(n int) error {
	if p.bytes += n; p.bytes < stride {
		return nil
	}
	p.bytes = 0
	if p.sync != nil {
		if err := p.sync(); err != nil {
			return err
		}
	}
	err := retry.Sleep(p.ctx, min(time.Since(p.began), maxRest))
	p.began = time.Now()
	return err
}

type pacedWriter struct {
	to   io.Writer
	pace *pacer
}

func (w pacedWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if err == nil {
		err = w.pace.moved(n)
	}
	return n, err
}

type pacedReader struct {
	from io.Reader
	pace *pacer
}

func (r pacedReader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	if err == nil {
		err = r.pace.moved(n)
	}
	return n, err
}
