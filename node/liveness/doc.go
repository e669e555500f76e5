// Package liveness detects three ways in which the cluster may stop making progress. An Outage
// reports how long a node has had no leader, and whether waiting for one is useless. A SilenceWatch
// makes a follower notice a silent leader in time. A Watchdog ends the leadership of a node whose
// entries do not commit.
//
// No answer about a token depends on this package: its clocks and estimates only determine when to
// give up and when to check again.
package liveness
