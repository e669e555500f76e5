package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"revoked/fsm/snapshot"
	"revoked/internal/durable"
)

// reserve is the free space, in bytes, that a backup leaves on a file system that also holds the
// data of the node. A node that has no space for its log stops.
const reserve = 256 << 20

// A folder is a directory of backups. Several nodes may share it, but only one process of each
// node.
type folder struct {
	dir, node string
	keep      int
	free      func() int64 // nil: the node's data is on another file system
	log       *slog.Logger
}

// temporary returns the prefix and the suffix of the names of this node's half-written files.
func (f *folder) temporary() (prefix, suffix string) {
	return ".revoked-backup-" + f.node + "-", ".tmp"
}

// save makes a backup. It then removes the oldest backups beyond the number to keep.
func (f *folder) save(ctx context.Context, src Source, now time.Time) (saved File, err error) {
	f.removeUnfinished()
	prefix, suffix := f.temporary()
	tmp, err := os.CreateTemp(f.dir, prefix+"*"+suffix) // mode 0600
	if err != nil {
		return saved, err
	}
	named := false
	defer func() {
		_ = tmp.Close()
		if !named {
			_ = os.Remove(tmp.Name())
		}
	}()
	pace := &pacer{ctx: ctx, began: time.Now(), sync: func() error {
		return errors.Join(f.checkFree(), tmp.Sync())
	}}
	if err := f.checkFree(); err != nil {
		return saved, err
	}
	if err := src.Snapshot(ctx, pacedWriter{tmp, pace}); err != nil {
		return saved, err
	}
	if err := tmp.Sync(); err != nil {
		return saved, err
	}
	header, err := readBack(ctx, tmp)
	if err != nil {
		return saved, err
	}
	name := nameOf(now, header.ClusterID, header.Index)
	saved, ok := parseName(name)
	if !ok {
		return saved, fmt.Errorf("name backup: cluster id: got %.80q, want letters, digits, _ and -", header.ClusterID)
	}
	saved.Bytes = header.Bytes
	if err := os.Rename(tmp.Name(), filepath.Join(f.dir, name)); err != nil {
		return saved, err
	}
	named = true
	if err := durable.SyncDirIfSupported(f.dir); err != nil {
		return saved, err
	}
	f.prune(saved)
	return saved, nil
}

// readBack reads the whole file and checks it as `revoked snapshot inspect` does.
func readBack(ctx context.Context, file *os.File) (snapshot.Header, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return snapshot.Header{}, err
	}
	dropCached(file)
	header, err := snapshot.Verify(pacedReader{file, &pacer{ctx: ctx, began: time.Now()}})
	if err != nil {
		return header, fmt.Errorf("read the backup back: %w", err)
	}
	dropCached(file)
	return header, nil
}

func (f *folder) checkFree() error {
	if f.free == nil {
		return nil
	}
	if n := f.free(); n > 0 && n < reserve {
		return fmt.Errorf("%w: %d MiB are left, and a backup must leave %d MiB for data_dir on the same file system",
			syscall.ENOSPC, n>>20, reserve>>20)
	}
	return nil
}

// removeUnfinished removes the half-written files of earlier processes of this node.
func (f *folder) removeUnfinished() {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return // save fails with the same error
	}
	prefix, suffix := f.temporary()
	for _, e := range entries {
		random, ok := strings.CutPrefix(e.Name(), prefix)
		random, whole := strings.CutSuffix(random, suffix)
		// random is a number in a file of this node. Other text belongs to a node with a longer
		// name.
		if ok && whole && random != "" && strings.Trim(random, "0123456789") == "" {
			f.remove(e.Name(), "cannot remove incomplete backup")
		}
	}
}

// list returns the backups of a cluster, oldest first.
func (f *folder) list(cluster string) ([]File, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var all []File
	for _, e := range entries {
		if file, ok := parseName(e.Name()); ok && file.Cluster == cluster && e.Type().IsRegular() {
			all = append(all, file)
		}
	}
	sortByTime(all)
	return all, nil
}

func sortByTime(all []File) {
	slices.SortFunc(all, func(a, b File) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Index, b.Index)) })
}

// newest returns the newest backup of a cluster, or a zero File if there is none.
func (f *folder) newest(_ context.Context, cluster string) (File, error) {
	all, err := f.list(cluster)
	if err != nil || len(all) == 0 {
		return File{}, err
	}
	last := all[len(all)-1]
	st, err := os.Stat(filepath.Join(f.dir, last.Name))
	if err != nil {
		return File{}, err
	}
	last.Bytes = st.Size()
	return last, nil
}

// prune removes the oldest backups of the cluster of saved. It never removes saved, even if saved
// seems to be the oldest because the clock was set back.
func (f *folder) prune(saved File) {
	all, err := f.list(saved.Cluster)
	if err != nil {
		f.log.Warn("cannot remove old backups", "error", err)
		return
	}
	for _, old := range surplus(all, saved, f.keep) {
		f.remove(old.Name, "cannot remove old backup")
	}
}

// surplus returns the oldest files beyond the number to keep. saved counts toward that number, but
// is never returned.
func surplus(all []File, saved File, keep int) []File {
	others := slices.DeleteFunc(all, func(f File) bool { return f.Name == saved.Name })
	return others[:max(0, len(others)-(keep-1))]
}

func (f *folder) remove(name, problem string) {
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
		f.log.Warn(problem, "error", err)
	}
}
