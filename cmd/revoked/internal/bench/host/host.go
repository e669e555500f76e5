// Package host describes the machine of a benchmark, and the resources that processes and
// directories use.
//
// It reads /proc and the file system, so some figures are missing on systems other than Linux. The
// callers then leave them out of the report.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"revoked/cmd/revoked/internal/cli"
)

// A Host describes the machine, so that a reader can put the figures into context.
type Host struct {
	CPUs        int     `json:"cpus"`
	Platform    string  `json:"platform"`
	Go          string  `json:"go"`
	Filesystem  string  `json:"filesystem"` // file system type of the data directories
	FsyncP50US  float64 `json:"fsync_p50_us"`
	FsyncP99US  float64 `json:"fsync_p99_us"`
	FsyncProbes int     `json:"fsync_probes"`
	LoadAverage float64 `json:"load_average"` // load average over the minute before the first measure
}

// Examine describes the machine. It rejects a directory in memory: fsync would cost nothing there.
func Examine(dir string) (Host, error) {
	h := Host{
		CPUs: runtime.GOMAXPROCS(0), Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		FsyncProbes: 300,
	}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if load, err := proc.LoadAvg(); err == nil {
			h.LoadAverage = load.Load1
		}
	}
	var inMemory bool
	var err error
	if h.Filesystem, inMemory, err = Filesystem(dir); err != nil {
		return h, err
	}
	if inMemory {
		return h, cli.UsageError(
			"%s is on %s, in memory: nothing would be durable. Use --dir with a directory on a disk", dir, h.Filesystem)
	}
	took, err := probeFsync(dir, h.FsyncProbes)
	if err != nil {
		return h, err
	}
	h.FsyncP50US = Micros(took[len(took)/2])
	h.FsyncP99US = Micros(took[len(took)*99/100])
	return h, nil
}

// probeFsync writes and syncs 4 KiB n times and returns the sorted times.
func probeFsync(dir string, n int) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4<<10)
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("fsync in %s: %w", dir, err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took, nil
}

// Micros returns d in microseconds.
func Micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// Millis returns d in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Usage returns the processor time of a process since its start, and its resident memory in bytes.
func Usage(pid int) (cpu time.Duration, resident int64, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0, err
	}
	st, err := p.Stat()
	return time.Duration(st.CPUTime() * float64(time.Second)), int64(st.ResidentMemory()), err
}

// ProcessorTimes returns the sum of the processor times of the processes.
func ProcessorTimes(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		t, _, err := Usage(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// DiskBytes returns the disk use of the files below dir, in total and by entry of dir. A file with
// several hard links counts once.
func DiskBytes(dir string) (total int64, parts map[string]int64, err error) {
	parts = map[string]int64{}
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running node has just removed the file
		}
		if err != nil || d.IsDir() {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if seen[uint64(st.Ino)] {
			return nil
		}
		seen[uint64(st.Ino)] = true
		rel, err := filepath.Rel(dir, path)
		name, _, _ := strings.Cut(rel, string(filepath.Separator))
		parts[name] += st.Blocks * 512
		total += st.Blocks * 512
		return err
	})
	return total, parts, err
}
