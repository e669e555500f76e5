package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"

	"revoked"
)

// failStop passes writes through until one fails. After a failed write or sync the content of the
// disk is unknown, and a second sync may report success. So no write is retried: the process exits,
// and the next process reads the disk again.
type failStop struct {
	fatal func(error)

	mu     sync.Mutex
	failed error
}

// write runs do unless an earlier write has failed. Writes are serialized. The first failure is
// passed to fatal.
func (f *failStop) write(name string, do func() error) error {
	f.mu.Lock()
	if f.failed != nil {
		defer f.mu.Unlock()
		return f.failed
	}
	err := do()
	if err == nil {
		f.mu.Unlock()
		return nil
	}
	err = fmt.Errorf("raft store: %s: %w", name, err)
	f.failed = err
	f.mu.Unlock()
	f.fatal(err)
	return err
}

// fail refuses every later write. It passes err to fatal unless a failure came before.
func (f *failStop) fail(err error) {
	f.mu.Lock()
	first := f.failed == nil
	if first {
		f.failed = err
	}
	f.mu.Unlock()
	if first {
		f.fatal(err)
	}
}

func (f *failStop) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = fmt.Errorf("raft store: %w", revoked.ErrClosed)
	}
}

// failStopLog writes through failStop and keeps a checksum with each entry. A damaged entry is
// fatal. It does not implement raft.MonotonicLogStore: the log may have gaps.
type failStopLog struct {
	store    raft.LogStore
	failStop *failStop
	path     string

	bytes, entries atomic.Int64 // amount stored since the last snapshot
}

var _ raft.LogStore = (*failStopLog)(nil)

func (l *failStopLog) FirstIndex() (uint64, error) { return l.store.FirstIndex() }
func (l *failStopLog) LastIndex() (uint64, error)  { return l.store.LastIndex() }

// GetLog implements raft.LogStore.
func (l *failStopLog) GetLog(index uint64, entry *raft.Log) error {
	err := l.store.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return err
	}
	if err == nil {
		err = verify(index, entry)
	}
	if err != nil {
		err = Damaged(l.path, err)
		l.failStop.fail(err)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (l *failStopLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l *failStopLog) StoreLogs(entries []*raft.Log) error {
	onDisk := make([]*raft.Log, len(entries))
	bytes := 0
	for i, e := range entries {
		onDisk[i] = withChecksum(e)
		bytes += len(e.Data) + entryOverhead
	}
	if err := l.failStop.write("store entries", func() error { return l.store.StoreLogs(onDisk) }); err != nil {
		return err
	}
	l.bytes.Add(int64(bytes))
	l.entries.Add(int64(len(entries)))
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *failStopLog) DeleteRange(first, last uint64) error {
	return l.failStop.write("delete entries", func() error { return l.store.DeleteRange(first, last) })
}

const (
	checksumSize  = 4
	entryOverhead = 64 // approximate, in bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC-32C of an entry. Without the checksum, a leader would replicate an entry
// that was damaged on its disk.
func checksum(e *raft.Log, extensions []byte) uint32 {
	var head [21]byte
	binary.BigEndian.PutUint64(head[:], e.Index)
	binary.BigEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	binary.BigEndian.PutUint32(head[17:], uint32(len(e.Data)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, e.Data)
	return crc32.Update(sum, castagnoli, extensions)
}

// withChecksum returns a copy of an entry whose extensions begin with its checksum.
func withChecksum(e *raft.Log) *raft.Log {
	c := *e
	extensions := make([]byte, 0, checksumSize+len(e.Extensions))
	extensions = binary.BigEndian.AppendUint32(extensions, checksum(e, e.Extensions))
	c.Extensions = append(extensions, e.Extensions...)
	return &c
}

// verify checks an entry that was read and removes its checksum.
func verify(index uint64, e *raft.Log) error {
	if e.Index != index || len(e.Extensions) < checksumSize {
		return fmt.Errorf("entry %d is malformed", index)
	}
	rest := e.Extensions[checksumSize:]
	if binary.BigEndian.Uint32(e.Extensions) != checksum(e, rest) {
		return fmt.Errorf("entry %d has a wrong checksum", index)
	}
	if e.Extensions = rest; len(rest) == 0 {
		e.Extensions = nil
	}
	return nil
}
