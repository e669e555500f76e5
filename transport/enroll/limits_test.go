package enroll

import (
	"context"
	"crypto/tls"

	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"revoked/internal/retry"
	"revoked/transport/pki"
)

// A pipe is one end of a connection in memory, with the address of the other end.
type pipe struct {
	net.Conn
	remote netip.AddrPort
}

func (p pipe) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }

// A limitKit is a server behind pipes, in a bubble of package synctest.
type limitKit struct {
	t     *testing.T
	ca    *pki.CA
	conf  *tls.Config
	serve func(context.Context, *tls.Conn)
}

func newLimitKit(t *testing.T, issue func(context.Context, *Request) ([]byte, error)) *limitKit {
	ca := newCA(t)
	return &limitKit{t, ca, certsOf(t, ca).ServerConfig(Protocol, "other"), NewServer(issue).Serve}
}

// dial connects from a host. ended is closed when the server has ended the connection.
func (k *limitKit) dial(host string) (c *tls.Conn, ended <-chan struct{}) {
	k.t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		c := tls.Server(pipe{server, netip.AddrPortFrom(netip.MustParseAddr(host), 9)}, k.conf)
		if c.HandshakeContext(k.t.Context()) == nil {
			k.serve(k.t.Context(), c)
		}
	}()
	pin := pki.Pin{Hash: pki.KeyHash(k.ca.Certificate())}
	c = tls.Client(client, pin.Config(Protocol))
	if err := c.HandshakeContext(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = client.Close(); <-done })
	synctest.Wait() // until the server waits for the request, so that connections have an order
	return c, done
}

// ended returns how many of the connections the server has ended by now.
func ended(list []<-chan struct{}) (n int) {
	synctest.Wait()
	for _, c := range list {
		select {
		case <-c:
			n++
		default:
		}
	}
	return n
}

// If all slots are in use, or one source uses a quarter of them, another connection displaces the
// oldest one.
func TestServe_FullPort_ClosesTheOldest(t *testing.T) {
	for name, tt := range map[string]struct {
		fits int
		host func(i int) string
	}{
		"one source":   {maxConnections / 4, func(int) string { return "10.0.0.1" }},
		"many sources": {maxConnections, func(i int) string { return fmt.Sprintf("10.0.0.%d", i/4) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newLimitKit(t, nil)
				var list []<-chan struct{}
				for i := range tt.fits {
					_, c := k.dial(tt.host(i))
					list = append(list, c)
				}
				if n := ended(list); n != 0 {
					t.Errorf("%d connections: got %d of them closed, want 0", tt.fits, n)
				}
				_, newest := k.dial(tt.host(tt.fits))
				if n := ended(append(list, newest)); n != 1 || ended(list[:1]) != 1 {
					t.Errorf("one more: got %d closed, the oldest %d, want only the oldest", n, ended(list[:1]))
				}
			})
		})
	}
}

// A member decides on few requests concurrently. The others wait for their turn.
func TestServe_ManyRequests_DecisionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int64
		next := make(chan struct{})
		k := newLimitKit(t, func(context.Context, *Request) ([]byte, error) {
			running.Add(1)
			defer running.Add(-1)
			<-next
			return []byte("certificate"), nil
		})
		got := make(chan error)
		const all = maxIssues + 2
		for i := range all {
			c, _ := k.dial(fmt.Sprintf("10.0.0.%d", i))
			a := applicant(t, tokenOf(k.ca))
			go func() { _, err := a.ask(c); got <- err }()
		}
		for left := all; left > 0; left-- {
			synctest.Wait()
			if n := running.Load(); n != int64(min(left, maxIssues)) {
				t.Errorf("%d are left: got %d concurrent decisions, want %d", left, n, min(left, maxIssues))
			}
			next <- struct{}{}
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
	})
}

// Each step has a deadline: reading the request, the decision, and writing the answer.
func TestServe_EachStep_HasADeadline(t *testing.T) {
	slow := func(d time.Duration) func(context.Context, *Request) ([]byte, error) {
		return func(ctx context.Context, _ *Request) ([]byte, error) {
			return []byte("certificate"), retry.Sleep(ctx, d)
		}
	}
	for name, tt := range map[string]struct {
		issue func(context.Context, *Request) ([]byte, error)
		ask   bool          // sends a request and reads the answer
		send  bool          // only sends a request
		want  time.Duration // until the server ends the connection
		fails bool
	}{
		"silent":           {issue: slow(0), want: readTimeout},
		"slow decision":    {issue: slow(2 * readTimeout), ask: true, want: 2 * readTimeout},
		"endless decision": {issue: slow(time.Hour), ask: true, want: issueTimeout, fails: true},
		"answer not read":  {issue: slow(0), send: true, want: issueTimeout + readTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newLimitKit(t, tt.issue)
				start := time.Now()
				c, ended := k.dial("10.0.0.1")
				a := applicant(t, tokenOf(k.ca))
				switch {
				case tt.ask:
					if _, err := a.ask(c); (err != nil) != tt.fails {
						t.Errorf("got %v, want an error: %t", err, tt.fails)
					}
				case tt.send:
					bound, err := binding(c)
					if err != nil {
						t.Fatal(err)
					}
					r := Request{Node: a.Node, CSR: a.CSR, TokenKey: a.Token.PublicKey(),
						Proof: a.Token.SignEnrollment(a.Node, a.CSR, bound)}
					b, err := r.encode()
					if err == nil {
						_, err = c.Write(b)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				select {
				case <-ended:
				case <-time.After(time.Hour):
					t.Error("got an open connection, want it closed")
				}
				if got := time.Since(start); got != tt.want {
					t.Errorf("got an end after %v, want %v", got, tt.want)
				}
			})
		})
	}
}
