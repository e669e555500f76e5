package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"revoked/internal/await"
)

// fill writes n chunks of different lengths to s and to want.
func fill(t *testing.T, s *Spool, want *bytes.Buffer, n int) {
	t.Helper()
	for i := range n {
		p := bytes.Repeat([]byte{byte(i)}, 1+i%700)
		want.Write(p)
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSpool_LargeAnswer_KeepsOrder(t *testing.T) {
	dir := t.TempDir()
	s := NewSpool(SpoolConfig{Dir: dir, Limit: 64 << 20, Budget: NewBudget(64 << 20)})
	var want bytes.Buffer
	fill(t, s, &want, 3000)
	if s.file == nil {
		t.Fatal("got no file, want one: the bytes exceed the memory of a spool")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("got files %v, error %v, want a file without a name", names, err)
	}
	var got bytes.Buffer
	emptied := make(chan struct{})
	done := make(chan error, 1)
	first := true
	go func() {
		done <- s.Drain(&got, func() error {
			if first {
				first = false
				close(emptied)
			}
			return nil
		})
	}()
	await.Receive(t, emptied, "a flush") // the file starts over
	fill(t, s, &want, 2000)
	s.Close()
	if err := await.Receive(t, done, "the end of Drain"); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, error %v, want the %d that were written", got.Len(), err, want.Len())
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("write to a closed spool: got nil, want an error")
	}
}

func TestSpool_DrainFails_WriteFails(t *testing.T) {
	s := NewSpool(SpoolConfig{Dir: t.TempDir(), Limit: 1 << 20, Budget: NewBudget(1 << 20)})
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	fail := writerFunc(func([]byte) (int, error) { return 0, lost })
	if err := s.Drain(fail, func() error { return nil }); !errors.Is(err, lost) {
		t.Errorf("Drain: got %v, want %v", err, lost)
	}
	if _, err := s.Write([]byte("y")); !errors.Is(err, lost) {
		t.Errorf("Write: got %v, want %v", err, lost)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// writeAll writes p in parts and reports the error.
func writeAll(s *Spool, p []byte) <-chan error {
	done := make(chan error, 1)
	go func() {
		for part := range chunks(p, 70_000) {
			if _, err := s.Write(part); err != nil {
				done <- err
				return
			}
		}
		s.Close()
		done <- nil
	}()
	return done
}

func chunks(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			part := p[:min(n, len(p))]
			if !yield(part) {
				return
			}
			p = p[len(part):]
		}
	}
}

// pattern returns n bytes in which any swap of two parts is visible.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>16) ^ byte(i>>8)*31 ^ byte(i)
	}
	return p
}

// A spool holds at most its limit on disk, however much is written, and each Write waits for room.
func TestSpool_ClientDoesNotRead_WriteWaits(t *testing.T) {
	const limit = 300_000
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(1 << 30)
		full := 0
		s := NewSpool(SpoolConfig{Dir: dir, Limit: limit, Budget: budget, Full: func(f bool) {
			if f {
				full++
			} else {
				full--
			}
		}})
		want := pattern(5 * limit)
		written := writeAll(s, want)
		synctest.Wait()
		if held := int64(len(s.mem)) + s.to - s.from; held != spoolMemory+limit || full != 1 {
			t.Fatalf("got %d bytes held and %d writes that wait, want %d and 1", held, full, spoolMemory+limit)
		}
		pr, pw := io.Pipe()
		drained := make(chan error, 1)
		go func() {
			err := s.Drain(pw, func() error { return nil })
			pw.CloseWithError(err)
			drained <- err
		}()
		var got bytes.Buffer
		buf := make([]byte, 10_007)
		for {
			n, err := pr.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
			if used := budget.Used(); used > limit {
				t.Fatalf("got %d bytes on disk, want at most %d", used, limit)
			}
		}
		if err := <-drained; err != nil {
			t.Errorf("Drain: got %v, want nil", err)
		}
		if err := <-written; err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("got %d bytes, error %v, want the %d that were written", got.Len(), err, len(want))
		}
		if used := budget.Used(); used != 0 || full != 0 {
			t.Errorf("at the end: got %d bytes of the budget and %d writes that wait, want 0 and 0", used, full)
		}
	})
}

// Spools share a budget. A Write waits for the bytes of another spool, and keeps its own memory.
func TestSpool_BudgetExhausted_WaitsForOthers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(100_000)
		cfg := SpoolConfig{Dir: dir, Limit: 1 << 20, Budget: budget}
		first, second := NewSpool(cfg), NewSpool(cfg)
		want := pattern(spoolMemory + 90_000)
		firstWritten := writeAll(first, want)
		synctest.Wait()
		secondWritten := writeAll(second, want)
		synctest.Wait()
		if budget.Used() != 100_000 || second.size != 10_000 {
			t.Fatalf("got %d bytes used, %d of the second; want 100000 and 10000", budget.Used(), second.size)
		}
		var got bytes.Buffer
		if err := first.Drain(&got, func() error { return nil }); err != nil {
			t.Errorf("Drain: got %v, want nil", err)
		}
		synctest.Wait()
		if err := <-firstWritten; err != nil || second.size != 90_000 {
			t.Errorf("got error %v and %d bytes of the second, want nil and 90000", err, second.size)
		}
		lost := errors.New("lost")
		fail := writerFunc(func([]byte) (int, error) { return 0, lost })
		if err := second.Drain(fail, func() error { return nil }); !errors.Is(err, lost) {
			t.Errorf("Drain: got %v, want %v", err, lost)
		}
		if err := <-secondWritten; err != nil { // all had room
			t.Errorf("second: got %v, want nil", err)
		}
		if budget.Used() != 0 {
			t.Errorf("at the end: got %d bytes of the budget, want 0", budget.Used())
		}
	})
}

func TestSpool_WaitingWrite_EndsWithSpool(t *testing.T) {
	dir, lost := t.TempDir(), errors.New("lost")
	for name, row := range map[string]struct {
		end  func(*Spool)
		want error
	}{
		"Close": {(*Spool).Close, errSpoolClosed},
		"Drain fails": {func(s *Spool) {
			_ = s.Drain(writerFunc(func([]byte) (int, error) { return 0, lost }), func() error { return nil })
		}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSpool(SpoolConfig{Dir: dir, Limit: 1000, Budget: NewBudget(1000)})
				written := writeAll(s, pattern(2*spoolMemory))
				synctest.Wait()
				row.end(s)
				if err := <-written; !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
				_ = s.Drain(io.Discard, func() error { return nil })
			})
		})
	}
}

// A full disk, or a directory that cannot be written, fails only this spool, and its part of the
// budget is released.
func TestSpool_FileFails_ReturnsErrSpool(t *testing.T) {
	budget := NewBudget(1 << 20)
	s := NewSpool(SpoolConfig{Dir: filepath.Join(t.TempDir(), "missing"), Limit: 1 << 20, Budget: budget})
	if _, err := s.Write(pattern(2 * spoolMemory)); !errors.Is(err, ErrSpool) {
		t.Errorf("Write: got %v, want %v", err, ErrSpool)
	}
	if err := s.Drain(io.Discard, func() error { return nil }); !errors.Is(err, ErrSpool) {
		t.Errorf("Drain: got %v, want %v", err, ErrSpool)
	}
	if budget.Used() != 0 {
		t.Errorf("got %d bytes of the budget, want 0", budget.Used())
	}
}

// A blockedWriter is a client that reads nothing until the stream is aborted.
type blockedWriter struct{ writing, aborted chan struct{} }

func (w blockedWriter) Write([]byte) (int, error) {
	close(w.writing)
	<-w.aborted
	return 0, ErrIdle
}

func TestSpool_FileFails_EndsBlockedDrain(t *testing.T) {
	w := blockedWriter{make(chan struct{}), make(chan struct{})}
	s := NewSpool(SpoolConfig{Dir: filepath.Join(t.TempDir(), "missing"), Limit: 1 << 20, Budget: NewBudget(1 << 20),
		Failed: func() { close(w.aborted) }})
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(w, func() error { return nil }) }()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await.Receive(t, w.writing, "a blocked write")
	if _, err := s.Write(pattern(2 * spoolMemory)); !errors.Is(err, ErrSpool) {
		t.Errorf("Write: got %v, want %v", err, ErrSpool)
	}
	if err := await.Receive(t, drained, "the end of Drain"); !errors.Is(err, ErrSpool) {
		t.Errorf("Drain: got %v, want %v", err, ErrSpool)
	}
}
