package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"revoked"
)

// damaged is the error of a data directory that cannot be trusted, with what to do about it.
func damaged(path string, cause error) error {
	return fmt.Errorf("%w: %s (%w): a copy may be older than what this node has promised, so move the data directory away "+
		"and let the node join as a new instance", revoked.ErrDamaged, path, cause)
}

// checkLogFile walks through all of a log file before it is used. bbolt trusts what it maps: a page that
// points elsewhere ends the process with a fault, from a goroutine that nobody can guard. Here the walk
// is done by this goroutine, and a fault is an error.
func checkLogFile(path string) (err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, fmt.Errorf("%v", p))
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(path, b) })
	})
}

// walk touches every key and every page of every value.
func walk(path string, b *bbolt.Bucket) error {
	var last []byte
	var sum byte
	return b.ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return damaged(path, errors.New("its keys are out of order"))
		}
		last = append(last[:0], k...)
		for i := 0; i < len(v); i += 4096 {
			sum ^= v[i]
		}
		if len(v) > 0 {
			sum ^= v[len(v)-1]
		}
		return nil
	})
}

// guarded runs f, which opens a log file, and makes an error of a panic.
func guarded(path string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, fmt.Errorf("%v", p))
		}
	}()
	return f()
}

// startRaft runs start, in which Raft reads all of the log above its newest snapshot, and makes an error of
// the panic that it ends with at an entry that it does not get.
func startRaft(dir string, start func() (*raft.Raft, error)) (r *raft.Raft, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		cause, ok := p.(error)
		var bug runtime.Error
		if !ok || errors.As(cause, &bug) {
			panic(p)
		}
		if errors.Is(cause, raft.ErrLogNotFound) {
			cause = damaged(filepath.Join(dir, "snapshots"), fmt.Errorf("it does not go with the log, %s, which begins above the newest snapshot that can be read: "+
				"a snapshot or its meta.json is missing or damaged", filepath.Join(dir, raftFile)))
		}
		err = cause
	}()
	return start()
}

// sealSize is what a seal adds to the extensions of an entry on disk.
const sealSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal is the checksum of an entry. bbolt has none of its own but for its meta pages, and an entry that
// was changed on the disk of a leader would be sent on.
func seal(e *raft.Log, extensions []byte) uint32 {
	var head [21]byte
	binary.BigEndian.PutUint64(head[:], e.Index)
	binary.BigEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	binary.BigEndian.PutUint32(head[17:], uint32(len(e.Data)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, e.Data)
	return crc32.Update(sum, castagnoli, extensions)
}

// sealed returns a copy of an entry, as it goes to disk: with its checksum before its extensions.
func sealed(e *raft.Log) *raft.Log {
	c := *e
	c.Extensions = append(binary.BigEndian.AppendUint32(make([]byte, 0, sealSize+len(e.Extensions)), seal(e, e.Extensions)), e.Extensions...)
	return &c
}

// unseal checks an entry that was read and takes the checksum off.
func unseal(index uint64, e *raft.Log) error {
	if e.Index != index || len(e.Extensions) < sealSize {
		return fmt.Errorf("entry %d is not one", index)
	}
	rest := e.Extensions[sealSize:]
	if binary.BigEndian.Uint32(e.Extensions) != seal(e, rest) {
		return fmt.Errorf("entry %d has a wrong checksum", index)
	}
	if e.Extensions = rest; len(rest) == 0 {
		e.Extensions = nil
	}
	return nil
}

// checkComplete refuses a directory of a cluster's member whose log or state is gone: without the log it
// would vote again, and a state begun anew lacks what the log no longer holds.
func checkComplete(dir string, id *identity) error {
	if id.ClusterID == "" {
		return nil
	}
	path := filepath.Join(dir, raftFile)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return damaged(path, errors.New("it is missing"))
	case err != nil:
		return err
	case info.Size() == 0:
		return damaged(path, errors.New("it is empty"))
	}
	current := filepath.Join(dir, "state", "CURRENT")
	if _, err := os.Stat(current); errors.Is(err, fs.ErrNotExist) {
		return damaged(current, errors.New("it is missing"))
	}
	return nil
}
