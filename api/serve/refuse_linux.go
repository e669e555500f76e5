package serve

import (
	"net"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// waiting returns the number of established connections that l has not accepted.
func waiting(l net.Listener) int {
	n := 0
	if raw := rawListener(l); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n = int(info.Unacked) // of a listener
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

// refuseNewConnections makes the kernel ignore further requests for a connection to l, so that the
// queue of l becomes empty and nothing is lost when l closes. A client repeats the request after a
// second and is then refused. Packets of handshakes that have begun pass. An error leaves l as it
// is.
func refuseNewConnections(l net.Listener) {
	raw := rawListener(l)
	if raw == nil {
		return
	}
	const flagsOffset, syn, ack = 13, 0x02, 0x10 // of the TCP header (RFC 9293 section 3.1)
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flagsOffset, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: syn | ack},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: syn, SkipFalse: 1},
		bpf.RetConstant{Val: 0}, // drop
		bpf.RetConstant{Val: 1 << 18},
	})
	if err != nil {
		return
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
}
