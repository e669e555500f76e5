package serve

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiting returns the number of established connections that l has not accepted.
func waiting(l net.Listener) int {
	n := 0
	if raw := rawListener(l); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n = int(info.Unacked) // for a listener, the length of its accept queue
			}
		})
	}
	return n
}

func rawListener(l net.Listener) syscall.RawConn {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// refuseNewConnections makes the kernel refuse new connections to l, so that the queue of l becomes
// empty and nothing is lost when l closes. Handshakes that have begun end normally. It binds l to a
// network interface that does not exist: no packet arrives from there. A process may bind a socket
// once without a privilege since Linux 5.7. An error leaves l as it is.
func refuseNewConnections(l net.Listener) {
	raw := rawListener(l)
	if raw == nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32)
	})
}
