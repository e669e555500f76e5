package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitSilence makes the kernel close a connection after the peer has been silent for about
// silence. An idle connection sends keep-alives. While data is unacknowledged the kernel sends
// none, so TCP_USER_TIMEOUT applies.
func limitSilence(c net.Conn, silence time.Duration) {
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
