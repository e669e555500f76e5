package backup

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A File is a complete backup in the directory or in the bucket.
type File struct {
	Name    string // revoked-TIME-CLUSTER-INDEX.snap
	At      time.Time
	Cluster string
	Index   uint64
	Bytes   int64
}

const timeForm = "20060102T150405.000Z"

var namePattern = regexp.MustCompile(`^revoked-([0-9]{8}T[0-9]{6}\.[0-9]{3}Z)-([0-9A-Za-z_-]+)-([0-9]+)\.snap$`)

// nameOf returns the name of a backup. The names of one cluster sort by time.
func nameOf(at time.Time, cluster string, index uint64) string {
	return fmt.Sprintf("revoked-%s-%s-%d.snap", at.UTC().Format(timeForm), cluster, index)
}

// parseName is the inverse of nameOf. It reports whether the name is that of a backup.
func parseName(name string) (File, bool) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return File{}, false
	}
	at, err := time.Parse(timeForm, m[1])
	index, errIndex := strconv.ParseUint(m[3], 10, 64)
	f := File{Name: name, At: at, Cluster: m[2], Index: index}
	return f, err == nil && errIndex == nil && nameOf(at, f.Cluster, index) == name
}
