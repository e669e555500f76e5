package fsm

import (
	"sync"
	"time"
)

// writeLoad is the load of the store, read at most every loadAge.
type writeLoad struct {
	mu      sync.Mutex
	at      time.Time
	percent int
}

const loadAge = 50 * time.Millisecond

// WriteLoad returns how close the store is to the point at which writes have to wait, in percent.
// The value may be 50 ms old. It is 0 after Close.
func (f *FSM) WriteLoad() int {
	f.load.mu.Lock()
	defer f.load.mu.Unlock()
	if now := time.Now(); now.Sub(f.load.at) >= loadAge {
		f.load.at, f.load.percent = now, 0
		if s, err := f.acquire(); err == nil {
			f.load.percent = s.WriteLoad()
			s.Release()
		}
	}
	return f.load.percent
}
