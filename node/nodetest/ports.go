package nodetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// handedOut holds the addresses that freePort has returned. Tests of one process run in parallel
// and must not share an address.
var handedOut sync.Map

// freePort returns a free loopback address. It returns each address only once. The port is below
// the kernel's ephemeral ports, so that no connection uses it while its node restarts. Another
// process may still take the port, so the function listen waits until the port is free.
func freePort(t testing.TB) string {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 22_000+rand.IntN(10_000))
		if _, taken := handedOut.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			defer l.Close()
			return addr
		}
	}
	t.Fatal("got no free port in 1000 attempts, want one")
	return ""
}

// listen listens on addr. It retries for LongStop, because the node's previous run may only just
// have released the port.
func listen(t testing.TB, addr string) net.Listener {
	deadline := time.Now().Add(LongStop)
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
