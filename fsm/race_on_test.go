//go:build race

package fsm_test

const underRace = true
