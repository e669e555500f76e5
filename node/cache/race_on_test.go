//go:build race

package cache

// underRace makes long tests shorter where the race detector makes them slower.
const underRace = true
