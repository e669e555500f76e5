package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// The bounds of a cache whose size nobody set.
const (
	leastCache = 16 << 20
	mostCache  = 128 << 20
)

// cacheSize returns set, or when it is 0 a thirty-second of the memory, within bounds.
func cacheSize(set, memory int64) int64 {
	if set != 0 {
		return set
	}
	return min(max(memory/32, leastCache), mostCache)
}

// A memoryLimit is how much memory there is, in bytes; 0: unknown.
type memoryLimit struct {
	machine   int64
	container int64 // of the control group; 0: none
}

// readMemory asks the kernel, on Linux; elsewhere it knows nothing.
func readMemory() memoryLimit {
	var m memoryLimit
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.machine = parseMeminfo(string(data))
	}
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// "max", and in version 1 a number beyond every machine, say that there is none.
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 && (m.machine == 0 || n < m.machine) {
			m.container = n
		}
	}
	return m
}

func (m memoryLimit) bytes() int64 {
	if m.container != 0 {
		return m.container
	}
	return m.machine
}

// parseMeminfo returns MemTotal in bytes, 0 when it is not there.
func parseMeminfo(text string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil || n > math.MaxInt64>>10 {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// limitHeap tells the collector of the container's limit, unless GOMEMLIMIT did: without it the heap
// would grow until the kernel ends the process.
func limitHeap(m memoryLimit) {
	if m.container != 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(m.container / 10 * 9)
	}
}
