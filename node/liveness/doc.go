// Package liveness detects three ways in which the cluster may stop making progress. An Outage
// reports how long a node has had no leader, and whether waiting for one is useless. A SilenceWatch
// makes a follower notice a silent leader in time. A Watchdog ends the leadership of a node that
// cannot commit entries.
//
// No response about a token depends on this package: its clocks and estimates only determine when a
// request fails and when Raft checks its leader.
package liveness
