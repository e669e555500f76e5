//go:build !linux

package transport

import (
	"net"
	"time"
)

// bound makes the kernel give a connection up when the peer has been silent for about silence, as
// far as keep-alives can do it.
func bound(c net.Conn, silence time.Duration) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive(silence))
	}
}
