//go:build race

package lease

// underRace makes long tests shorter, because the race detector makes them slower.
const underRace = true
