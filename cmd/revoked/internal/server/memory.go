package server

import (
	"cmp"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"revoked/cmd/revoked/internal/config"
)

// The bounds of a cache without a configured size.
const (
	minCache = 16 << 20
	maxCache = 128 << 20
)

// cacheSize returns configured. If configured is 0, it returns 1/32 of the memory, at least
// minCache and at most maxCache.
func cacheSize(configured, memory int64) int64 {
	return cmp.Or(configured, min(max(memory/32, minCache), maxCache))
}

// A memoryLimit holds the available memory in bytes. 0 means unknown.
type memoryLimit struct {
	machine   int64
	container int64 // limit of the control groups
}

// readMemory reads the limits that Linux reports. Elsewhere they are unknown.
func readMemory() memoryLimit {
	var m memoryLimit
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if info, err := proc.Meminfo(); err == nil && info.MemTotalBytes != nil {
			m.machine = int64(min(*info.MemTotalBytes, math.MaxInt64))
		}
	}
	self, _ := os.ReadFile("/proc/self/cgroup") // if it cannot be read, the limit of the root of the mount applies
	if n := groupLimit("/sys/fs/cgroup", string(self)); m.machine == 0 || n < m.machine {
		m.container = n
	}
	return m
}

// groupLimit returns the lowest memory limit of a process's control groups and their ancestors, 0
// if they have none. root is the mount of the groups, self the text of /proc/self/cgroup. In a
// container the paths of self may not exist below root; the root then has the container's limit.
func groupLimit(root, self string) (least int64) {
	for line := range strings.Lines(self + "\n0::/\n0:memory:/\n") {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers of version 1, path
		if len(parts) < 3 {
			continue
		}
		mount, file := root, "memory.max"
		if slices.Contains(strings.Split(parts[1], ","), "memory") {
			mount, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		for dir := path.Join("/", parts[2]); ; dir = path.Dir(dir) {
			data, err := os.ReadFile(filepath.Join(mount, dir, file))
			if err == nil {
				// No limit: "max", or in version 1 a number larger than any memory.
				n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
				if err == nil && n > 0 && (least == 0 || n < least) {
					least = n
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func (m memoryLimit) bytes() int64 { return cmp.Or(m.container, m.machine) }

// limitHeap sets the garbage collector's limit to nine tenths of the container's memory, unless
// GOMEMLIMIT sets one. Without it the heap could grow until the kernel kills the process.
func limitHeap(m memoryLimit) {
	if m.container != 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(m.container / 10 * 9)
	}
}

// portLimits are the limits of the API port.
type portLimits struct{ conns, connsPerAddress, requests, requestsPerAddress, perClient int }

// The default limits allow one connection and one request per this many bytes of memory. An
// attacker can make a connection hold 50 KiB and a request 35 KiB, so attackers hold at most a
// fifth of the memory.
const (
	memoryPerConn    = 512 << 10
	memoryPerRequest = 256 << 10
)

// limitsOf returns the configured limits. It replaces 0 with a limit that the memory allows.
func limitsOf(c *config.Config, memory int64) portLimits {
	share := func(per int64) int {
		if memory == 0 {
			return maxPort
		}
		return int(min(max(memory/per, minPort), maxPort))
	}
	var l portLimits
	l.conns = cmp.Or(c.MaxConnections, share(memoryPerConn))
	l.connsPerAddress = cmp.Or(c.MaxConnectionsPerAddress, max(1, l.conns/4))
	l.requests = cmp.Or(c.MaxRequests, share(memoryPerRequest))
	l.requestsPerAddress = cmp.Or(c.MaxRequestsPerAddress, max(1, l.requests/4))
	l.perClient = cmp.Or(c.MaxRequestsPerClient, max(1, l.requests/2))
	return l
}

// The bounds of default limits.
const (
	minPort = 1_000
	maxPort = 10_000
)
