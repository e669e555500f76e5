//go:build system

package systemtest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// linkMark marks the packets of the links, which must not be redirected into a link again.
const linkMark = 0x7e

// configureSocket sets the mark and the user timeout of the nodes' sockets on a link's outgoing
// socket. With another timeout the link's retransmissions would prolong a cut after it is healed.
func configureSocket(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, linkMark),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4000),
		)
	})
	return errors.Join(ctlErr, err)
}

// putLinks passes each connection from a node to the cluster port of another through a link of the
// two. A packet filter redirects it inside the namespace of the dialing node, so cuts between
// namespaces still apply. Call it before the nodes start.
func (w *network) putLinks(t testing.TB) {
	t.Helper()
	w.links = map[[2]*member]*link{}
	for _, near := range w.Nodes {
		byAddress := map[string]*link{}
		var rules strings.Builder
		fmt.Fprintf(&rules, "table ip links {\nchain out {\ntype nat hook output priority -100;\nmeta mark %d return\n",
			linkMark)
		listener := w.listenFrom(t, near)
		for _, far := range w.Nodes {
			if far == near {
				continue
			}
			d := net.Dialer{Timeout: 3 * time.Second, Control: configureSocket}
			from := dialFromWith(w.hosts[near], &d)
			l := startLink(t, nil, func() (net.Conn, error) { return from(context.Background(), "tcp", far.Cluster) })
			w.links[[2]*member{near, far}] = l
			byAddress[far.Cluster] = l
			fmt.Fprintf(&rules, "ip daddr %s tcp dport %s redirect to :%s\n", far.host(), portOf(far.Cluster),
				portOf(listener.Addr().String()))
		}
		rules.WriteString("}\n}\n")
		w.filter(t, near, rules.String())
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				to, err := originalAddress(c.(*net.TCPConn))
				if l := byAddress[to]; err == nil && l != nil {
					l.carry(c)
				} else {
					_ = c.Close()
				}
			}
		}()
	}
}

// link returns the link for connections from the first node to the second.
func (w *network) link(near, far *member) *link { return w.links[[2]*member{near, far}] }

// delayBetween delays both directions of all connections between two nodes.
func (w *network) delayBetween(a, b *member, oneWay, jitter time.Duration) {
	w.link(a, b).delay(oneWay, oneWay, jitter)
	w.link(b, a).delay(oneWay, oneWay, jitter)
}

// listenFrom listens inside the namespace of a node, until the end of the test.
func (w *network) listenFrom(t testing.TB, m *member) (l net.Listener) {
	t.Helper()
	err := inside(w.hosts[m], func() (err error) {
		l, err = net.Listen("tcp4", "0.0.0.0:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// originalAddress returns the original destination of a redirected connection.
func originalAddress(c *net.TCPConn) (string, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	const originalDestination = 80 // SO_ORIGINAL_DST: a sockaddr_in, which fits into this
	var in *unix.IPv6Mreq
	ctlErr := raw.Control(func(fd uintptr) {
		in, err = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, originalDestination)
	})
	if err = errors.Join(err, ctlErr); err != nil {
		return "", err
	}
	port := binary.BigEndian.Uint16(in.Multiaddr[2:4])
	return net.JoinHostPort(net.IP(in.Multiaddr[4:8]).String(), fmt.Sprint(port)), nil
}

// filter applies rules in the namespace of a node.
func (w *network) filter(t testing.TB, m *member, rules string) {
	t.Helper()
	var output strings.Builder
	p := startProcess(t, "", func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &output, &output
	}, "ip", "netns", "exec", w.hosts[m], "nft", "-f", "-")
	if code := p.exit(t); code != 0 {
		t.Fatalf("nft: %s\n%s", output.String(), rules)
	}
}

// This tests the harness: a link treats two protocols on one port separately.
func TestLink_AffectsOneProtocol(t *testing.T) {
	l, dial := linkToEcho(t)
	raft, calls := dial(raftStreams), dial(nodeCalls)
	echo(t, raft, "a")
	echo(t, calls, "b")

	t.Run("a cut of one protocol spares the other", func(t *testing.T) {
		l.cut(raftStreams, true, true)
		before := l.held.Load()
		send(t, raft, "held")
		await(t, "a connection to be cut", func() error {
			if l.held.Load() == before {
				return errors.New("no connection was cut")
			}
			return nil
		})
		echo(t, calls, "passes")
		l.heal()
		expect(t, raft, "held")
	})
	t.Run("a cut of one direction spares the other", func(t *testing.T) {
		l.cut("", false, true)
		before := l.held.Load()
		send(t, raft, "answer held")
		await(t, "the answer to be held", func() error {
			if l.held.Load() == before {
				return errors.New("not held")
			}
			return nil
		})
		l.heal()
		expect(t, raft, "answer held")
	})
	t.Run("a delay keeps the order", func(t *testing.T) {
		const oneWay = 30 * time.Millisecond
		l.delay(oneWay, oneWay, 10*time.Millisecond)
		begin := time.Now()
		send(t, raft, "one ")
		send(t, raft, "two ")
		send(t, raft, "three")
		expect(t, raft, "one two three")
		if took := time.Since(begin); took < 2*oneWay {
			t.Errorf("round trip: got %v, want at least %v", took, 2*oneWay)
		}
		l.delay(0, 0, 0)
		echo(t, raft, "d")
	})
	t.Run("a rate limit holds", func(t *testing.T) {
		const rate, size = 1 << 20, 256 << 10
		l.limit(rate)
		begin := time.Now()
		text := strings.Repeat("x", size)
		sent := make(chan error, 1)
		go func() {
			_, err := raft.Write([]byte(text))
			sent <- err
		}()
		expect(t, raft, text)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < time.Second*size/rate {
			t.Errorf("got %v, want at least %v", took, time.Second*size/rate)
		}
		l.limit(0)
	})
	t.Run("a reset of one protocol spares the other", func(t *testing.T) {
		l.reset(raftStreams)
		if _, err := raft.Read(make([]byte, 1)); err == nil {
			t.Error("read after the reset: got nil, want an error")
		}
		echo(t, calls, "still there")
		echo(t, dial(raftStreams), "a new one")
	})
}

// linkToEcho returns a link to a server that echoes both protocols.
func linkToEcho(t *testing.T) (l *link, dial func(protocol string) *tls.Conn) {
	t.Helper()
	dir := t.TempDir()
	if code, _, messages := runProgram(t, nil, "", "cert", "dev", "--nodes", "1", "--dir", dir); code != 0 {
		t.Fatal(messages)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "node1.pem"), filepath.Join(dir, "node1-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := tls.Listen("tcp", "127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{raftStreams, nodeCalls}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = startLink(t, front, func() (net.Conn, error) { return net.Dial("tcp", server.Addr().String()) })
	return l, func(protocol string) *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", front.Addr().String(),
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(longStop)); err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func echo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	send(t, c, text)
	expect(t, c, text)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Fatalf("got %.40q, want %.40q", got, want)
	}
}
