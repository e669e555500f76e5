// Package systemtest holds the tests that run the built program as processes of their own, on real
// disks and real ports, and break it: kill -9 under load, pauses, cut networks, damaged files, full, failing and
// hanging disks, power cuts, wrong certificates. It promises what a user can check from outside; it imports
// nothing of this module.
//
//	go test -tags system -v ./cmd/revoked/systemtest/
//
// It never asserts a time, never touches a process, a port or a folder that it did not make, and leaves
// nothing behind but the folder of a nemesis run that failed. Longer forms are set by variables:
// REVOKED_MINUTES (of the nemesis, 4) and REVOKED_SEED (its plan), REVOKED_ROUNDS (kill rounds, 20),
// REVOKED_CUTS (of power, 15), REVOKED_PAIRS (pairs of the bulk registration, 1000000), REVOKED_SAMPLE (of
// those, revoked one by one, 30000). REVOKED_KEEP=1 keeps the folders of the clusters, REVOKED_RACE=1 builds
// the program with the race detector, REVOKED_MUTANT with GOFLAGS=-tags=mutant breaks one of its rules
// (internal/mutant), to see these tests fail, REVOKED_DIR is where the folders are made (a real disk, not memory).
//
// Dangerous: many of the tests need root. They make network namespaces, mount small file systems, make control
// groups and trace the nodes' system calls.
package systemtest
