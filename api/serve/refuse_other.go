//go:build !linux

package serve

import "net"

// refuseNewConnections does nothing: a connection that is established while l closes is reset.
func refuseNewConnections(net.Listener) {}

func waiting(net.Listener) int { return 0 }
