package server

import (
	"os"
	"path/filepath"
	"testing"

	"revoked/cmd/revoked/internal/config"
)

func TestCacheSize_StaysWithinBounds(t *testing.T) {
	for _, tt := range []struct {
		name              string
		set, memory, want int64
	}{
		{"a configured size", 5, 1 << 40, 5},
		{"a thirty-second of the memory", 0, 1 << 30, 32 << 20},
		{"at least the minimum", 0, 0, minCache},
		{"at most the maximum", 0, 1 << 40, maxCache},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cacheSize(tt.set, tt.memory); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestReadMemory_ReportsTheMachine(t *testing.T) {
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("this system has no /proc/meminfo")
	}
	if m := readMemory(); m.machine < 64<<20 || m.bytes() > m.machine {
		t.Errorf("got %+v, want a machine of at least 64 MiB", m)
	}
}

// The limit of a process is the lowest MemoryMax of its control group and of all groups above it.
func TestGroupLimit_NestedGroups_ReturnsLowest(t *testing.T) {
	const none = "9223372036854771712"
	for _, tt := range []struct {
		name, self string
		files      map[string]string
		want       int64
	}{
		{"no groups", "", nil, 0},
		{"a container", "0::/\n", map[string]string{"memory.max": "1000\n"}, 1000},
		{"a service", "0::/system.slice/revoked.service\n",
			map[string]string{"system.slice/revoked.service/memory.max": "1000\n"}, 1000},
		{"a slice", "0::/a/b\n", map[string]string{"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, 1000},
		{"no limit", "0::/a\n", map[string]string{"a/memory.max": "max\n"}, 0},
		{"version 1", "9:name=systemd:/\n5:cpu,memory:/a:b\n0::/\n", map[string]string{
			"memory/memory.limit_in_bytes": none, "memory/a:b/memory.limit_in_bytes": "1000"}, 1000},
		{"version 1, a container that sees the host's path", "4:memory:/docker/x\n",
			map[string]string{"memory/memory.limit_in_bytes": "1000\n"}, 1000},
		{"another controller of version 1", "4:cpu:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "1000"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				name = filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := groupLimit(root, tt.self); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestLimitsOf_FollowMemory(t *testing.T) {
	set := config.Config{Settings: config.Settings{MaxConnections: 10, MaxConnectionsPerAddress: 9, MaxRequests: 8,
		MaxRequestsPerAddress: 7, MaxRequestsPerClient: 6}}
	one := config.Config{Settings: config.Settings{MaxConnections: 1, MaxRequests: 1}}
	for _, tt := range []struct {
		name   string
		cfg    *config.Config
		memory int64
		want   portLimits
	}{
		{"little memory", &config.Config{}, 256 << 20, portLimits{1000, 250, 1024, 256, 512}},
		{"0.9 GB", &config.Config{}, 900_000_000, portLimits{1716, 429, 3433, 858, 1716}},
		{"much memory", &config.Config{}, 64 << 30, portLimits{10_000, 2500, 10_000, 2500, 5000}},
		{"unknown memory", &config.Config{}, 0, portLimits{10_000, 2500, 10_000, 2500, 5000}},
		{"configured", &set, 1 << 30, portLimits{10, 9, 8, 7, 6}},
		{"configured to 1", &one, 1 << 30, portLimits{1, 1, 1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := limitsOf(tt.cfg, tt.memory); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
