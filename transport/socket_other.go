//go:build !linux

package transport

import (
	"net"
	"time"
)

// limitSilence makes the kernel close an idle connection after the peer has been silent for about
// silence. The kernel takes longer while data is unacknowledged.
func limitSilence(c net.Conn, silence time.Duration) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive(silence))
	}
}
