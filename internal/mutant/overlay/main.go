// Command overlay writes the overlay of one mutant into a new temporary directory and prints its
// path. Run any test of the tree against it:
//
//	go test -overlay "$(go run ./internal/mutant/overlay timer-flag)" ./node
//
// Run it in the module's root.
package main

import (
	"fmt"
	"os"

	"revoked/internal/mutant"
)

func main() {
	path, err := write(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

func write(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("usage: overlay MUTANT (got %d arguments)", len(args))
	}
	m, err := mutant.Find(args[0])
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "revoked-mutant-")
	if err != nil {
		return "", err
	}
	return m.Overlay(".", dir)
}
