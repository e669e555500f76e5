package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// A benchHost is what a reader must know of the machine to judge the figures.
type benchHost struct {
	CPUs        int     `json:"cpus"`
	Platform    string  `json:"platform"`
	Go          string  `json:"go"`
	Filesystem  string  `json:"filesystem"` // of the data directories
	FsyncP50US  float64 `json:"fsync_p50_us"`
	FsyncP99US  float64 `json:"fsync_p99_us"`
	FsyncProbes int     `json:"fsync_probes"`
	LoadAverage float64 `json:"load_average"` // of the last minute, before the measures: of others
}

// examineHost looks at the machine, and refuses a folder in memory: its figures would mean nothing.
func examineHost(dir string) (benchHost, error) {
	h := benchHost{CPUs: runtime.GOMAXPROCS(0), Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), FsyncProbes: 300}
	h.LoadAverage, _ = loadAverage() // 0 where the system does not tell
	fs, inMemory, err := filesystemOf(dir)
	if err != nil {
		return h, err
	}
	if inMemory {
		return h, usageError("%s is on %s, in memory: nothing would be durable. Name a folder on a disk with --dir", dir, fs)
	}
	h.Filesystem = fs
	took, err := probeFsync(dir, h.FsyncProbes)
	if err != nil {
		return h, err
	}
	h.FsyncP50US = micros(took[len(took)/2])
	h.FsyncP99US = micros(took[len(took)*99/100])
	return h, nil
}

// probeFsync writes and syncs 4 KiB n times and returns the sorted times.
func probeFsync(dir string, n int) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
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

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func millisOf(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
