package leasecheck

import "time"

// A Life is one incarnation of a node. Its clocks count nanoseconds.
type Life struct {
	Server, Boot  string
	Clock         func() int64   // boot clock
	Wall          func() int64   // offset of the wall clock from the boot clock
	Rate          func() float64 // rate of the boot clock
	Applied, Last func() uint64  // applied index, last index of the log

	nonce    uint64
	requests map[uint64]request
	adopted  uint64
	dropped  uint64 // replies up to this nonce are rejected
	term     uint64
	end      int64 // end of the lease on this incarnation's clock; 0: none
	length   time.Duration
	endsWall int64 // offset of the wall clock when the lease's request was recorded
	ended    time.Time
}

// Valid reports whether the incarnation may answer from its own copy now.
func (l *Life) Valid() bool {
	moved := time.Duration(l.Wall() - l.endsWall)
	return l.end != 0 && l.Clock() < l.end-int64(guard) && moved.Abs() <= guard+maxWallDrift
}
