package fsm

import (
	"sync"
	"time"
)

// writeLoad caches the write load of the store for loadAge.
type writeLoad struct {
	mu      sync.Mutex
	at      time.Time
	percent int
}

const loadAge = 50 * time.Millisecond

// WriteLoad returns the write load of the store in percent. At 100, writes have to wait. The value
// may be 50 ms old. It is 0 after Close.
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
