//go:build race

package lease

// underRace makes long tests shorter where the race detector makes them slower.
const underRace = true
