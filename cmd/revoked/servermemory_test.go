package main

import "testing"

func TestCacheSize(t *testing.T) {
	for _, tt := range []struct {
		name              string
		set, memory, want int64
	}{
		{"what was set", 5, 1 << 40, 5},
		{"a thirty-second of the memory", 0, 1 << 30, 32 << 20},
		{"no less than the least", 0, 0, leastCache},
		{"no more than the most", 0, 1 << 40, mostCache},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cacheSize(tt.set, tt.memory); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestParseMeminfo(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:       16384 kB\nMemFree: 1 kB\n": 16 << 20, "": 0, "MemTotal: many kB\n": 0, "MemTotal: 9223372036854775807 kB": 0,
	} {
		if got := parseMeminfo(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
