// Package raftstore keeps Raft's log, votes and snapshots, and makes them fail-stop. Open is the
// only constructor of a Store; StartRaft starts Raft on it. Futures ends the futures that Raft
// leaves without an answer when it stops.
//
// A vote or an entry is durable before the call that stores it returns. After the first failed
// write or damaged entry, the store calls Config.Fatal once and rejects every later write. The log
// never returns entries that contradict the newest snapshot.
//
// The package never repairs or truncates damaged files, and never retries a write. An older copy of
// a vote or an entry could contradict what this node has acknowledged to others.
//
// The layers, from Raft down to the disk:
//
//	                          hashicorp/raft
//	         | log                  | term, vote         | snapshots, state machine
//	+--------v-----------+  +-------v---------+  +-------v------------------------+
//	| intakeLog          |  |                 |  | snapshotTracker                |
//	+--------------------+  |                 |  |                                |
//	| snapshotCheckedLog |  |                 |  |                                |
//	|  reads the tracker |  |                 |  |                                |
//	+--------------------+  |                 |  |                                |
//	| markedLog          |  |                 |  |   implements both interfaces   |
//	+--------------------+  | voteStore       |  +-------------------+------------+
//	| raft.LogCache      |  |                 |  | fsm.SnapshotStore |  fsm.FSM   |
//	+--------------------+  |                 |  +-------------------+            |
//	| failStopLog        |  |                 |  | raft file store   |            |
//	+--------------------+--+-----------------+  |                   |            |
//	| failStop: one lock for all writes       |  |                   |            |
//	+-----------------------------------------+  |                   |            |
//	| raft-boltdb, bbolt                      |  |                   |            |
//	+-----------------------------------------+  +-------------------+------------+
//	  DIR/raft.db                                 DIR/snapshots        DIR/state
//
// Each layer has one task:
//
//   - intakeLog and snapshotTracker report to the read leases when the log receives entries. From
//     these reports, a new leader derives how long the leases of earlier terms can last.
//   - snapshotCheckedLog hides entries that do not lead to the newest snapshot. Raft keeps a
//     divergent tail under an installed snapshot. It then refuses every append, and the leader
//     sends the snapshot forever (hashicorp/raft#697). Store.ReviewAppend is the other half of the
//     fix. The layer is above the cache, because the cache may contain an entry that must be
//     hidden.
//   - markedLog records the progress of each member. So every later leader and candidate notices a
//     member whose disk was rolled back. The layer is below snapshotCheckedLog, because that layer
//     deletes entries too. See DESIGN.md.
//   - failStopLog adds a checksum to each entry, because bbolt checks only its meta pages. It
//     counts the written bytes, so that the log is truncated by size.
//   - voteStore writes a vote as one record. Raft writes the term and the candidate in two
//     transactions; a crash between them pairs a new term with an old candidate. It also stops the
//     process when the current term cannot be stored, because Raft would panic without the cause.
//   - failStop refuses every write after the first failure. Raft itself continues: a leader steps
//     down, a follower logs the error. After a failed sync the content of the disk is unknown, and
//     a second sync may report success.
//   - snapshotTracker keeps the position of the newest snapshot in memory. A received snapshot
//     counts only once the state is restored from it: after a failed restore Raft continues at its
//     old position.
//   - StartRaft turns the panics of raft.NewRaft into errors, and refuses to start on a snapshot
//     that is older than the newest.
//
// See DESIGN.md for the rejected alternatives.
package raftstore
