// Package systemtest runs the built program in processes on real disks and real ports and injects
// faults. Processes are killed and paused, and networks cut. Files are damaged, disks fill, fail,
// hang and lose power, and certificates are wrong. It checks only behavior that a user can observe.
// So it imports only packages that also treat the program as a black box.
//
//	go test -tags system -v ./cmd/revoked/systemtest/
//
// Long tests that mostly wait run in parallel, after the rest. Tests that measure or that
// fill a disk run alone. The tests assert no durations. They touch only processes, ports and
// directories that they created, and leave only the directory of a failed nemesis run. Environment
// variables configure them:
//
//   - REVOKED_MINUTES and REVOKED_SEED: length (default 4) and plan of the nemesis; also the seed
//     of the fuzz
//   - REVOKED_ROUNDS: kill rounds (10)
//   - REVOKED_CUTS: power cuts (15)
//   - REVOKED_HOSTILE: how many times the attacks of the hostile clients are repeated (1)
//   - REVOKED_FUZZ and REVOKED_FUZZ_RATE: length of the fuzz (10s), and its maximum of exchanges a
//     second (500)
//   - REVOKED_PAIRS and REVOKED_SAMPLE: pairs of the bulk registration (1000000), and how many are
//     revoked one by one (30000)
//   - REVOKED_DIR: parent of the test directories, on a real disk
//   - REVOKED_KEEP=1: keep the directories of the clusters
//   - REVOKED_RACE=1: build the program with the race detector
//   - GOFLAGS=-overlay=...: break a rule of the program (internal/mutant), to see a test fail
//
// Dangerous: many tests need root. They create network namespaces and control groups, mount small
// file systems and trace system calls.
package systemtest
