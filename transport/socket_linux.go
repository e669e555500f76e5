package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// bound makes the kernel give a connection up when the peer has been silent for about
// silence: by keep-alives while nothing is under way, by TCP_USER_TIMEOUT while something is (keep-alives
// are not sent then).
func bound(c net.Conn, silence time.Duration) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(keepAlive(silence))
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
}
