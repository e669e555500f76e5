// Package backup makes backups of this node's cluster on a schedule and keeps the newest ones.
//
// A backup gets its name only after it is complete and on disk, and was read back. A failure never
// removes an older backup and never disturbs the node. It leaves a log line, and a metric counts
// it. The next attempt follows soon. The package removes only files with the name of a backup of
// the same cluster, or of an incomplete backup of the same node.
package backup
