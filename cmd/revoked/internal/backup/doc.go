// Package backup makes backups of this node's cluster by a schedule and keeps the newest of them.
//
// A backup gets its name only when it is complete, on disk, and was read back. A failure never
// removes an older backup and never disturbs the node: it is a log line and a metric, and the next
// attempt follows soon. The package removes only files that have the name of a backup of the same
// cluster, or of a half-written one of the same node.
package backup
