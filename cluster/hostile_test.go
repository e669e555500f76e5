package cluster_test

import (
	"bytes"
	"compress/lzw"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/cluster"
	"revoked/internal/await"
	"revoked/internal/hostile"
)

// Encoders of messages.
var (
	field, fields = hostile.Entry, hostile.Entries
	msg, compound = hostile.Message, hostile.Compound
	bomb          = hostile.Bomb
)

// allocated returns the bytes that f causes this process to allocate.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// maxAllocated limits what one hostile message may make a node allocate, the test included.
const maxAllocated = 16 << 20

// A holder of the gossip key sends a small message that expands, or announces a large size. The
// node must not allocate more than maxAllocated.
func TestGossip_HostileMessages_AllocateLittle(t *testing.T) {
	key := newKey(t)
	log := &await.Log{}
	n1 := start(t, key, "node1", func(c *cluster.Config) { c.Log = log.Logger() })
	a := hostile.Gossip{Key: key, Label: "c1", Addr: n1.Addr()}
	small := bomb(t, 30<<10)
	huge := []byte{0xdb, 0x7f, 0xff, 0xff, 0xff} // a string of 2 GiB
	for name, plain := range map[string][]byte{
		"bomb":               small,
		"bomb in a compound": compound(msg(hostile.TypePing, field("SeqNo", 1)), small),
		"long string":        msg(hostile.TypeSuspect, field("Node", huge)),
		"long key":           append([]byte{hostile.TypeAlive, 0x81}, huge...),
		"user message":       msg(hostile.TypeUser, field("UserMsgLen", 1<<30)),
		"too many nodes": msg(hostile.TypePushPull, field("Nodes", 1<<20),
			field("UserStateLen", 0)),
		"user state": msg(hostile.TypePushPull, field("Nodes", 0),
			field("UserStateLen", 20<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			if len(plain) < 60<<10 {
				packet := a.Packet(t, plain)
				if got := allocated(func() { a.SendPackets(t, packet, packet) }); got > maxAllocated {
					t.Errorf("packet of %d bytes: got %d bytes allocated, want at most %d", len(packet), got, maxAllocated)
				}
			}
			stream := a.Stream(t, 1, plain)
			if got := allocated(func() { a.SendStream(t, stream) }); got > maxAllocated {
				t.Errorf("stream of %d bytes: got %d bytes allocated, want at most %d", len(stream), got, maxAllocated)
			}
		})
	}
	// 20 MiB announced, 8 MiB sent.
	long := append(append(a.Header(), hostile.TypeEncrypt, 0x01, 0x3f, 0xff, 0xff), make([]byte, 8<<20)...)
	if got := allocated(func() { a.SendStream(t, long) }); got > maxAllocated {
		t.Errorf("stream of another key: got %d bytes allocated, want at most %d", got, maxAllocated)
	}
}

// Messages on which memberlist panics must not reach it.
func TestGossip_MalformedMessages_DoNotStopTheNode(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	a := hostile.Gossip{Key: key, Label: "c1", Addr: n1.Addr()}
	short := field("Vsn", []byte{0xa2, 1, 5}) // 2 of 6 versions
	node := fields(field("Name", "evil~1"), field("State", 0), short)
	state := append(msg(hostile.TypePushPull, field("Nodes", 1), field("UserStateLen", 0)),
		node...)
	var empty bytes.Buffer
	if err := lzw.NewWriter(&empty, lzw.LSB, 8).Close(); err != nil {
		t.Fatal(err)
	}
	for name, plain := range map[string][]byte{
		"empty":                nil,
		"short versions":       state,
		"empty compressed":     msg(hostile.TypeCompress, field("Algo", 0), field("Buf", empty.String())),
		"padding of 255 bytes": bytes.Repeat([]byte{255}, 16),
	} {
		a.SendPackets(t, a.Packet(t, plain),
			append(a.Header(), a.Seal(t, 0, plain, []byte(a.Label))...))
		a.SendStream(t, a.Stream(t, 1, plain))
		a.SendStream(t, a.Stream(t, 0, plain))
		a.SendPackets(t)
		if got := n1.Members(); len(got) != 1 {
			t.Errorf("%s: got %+v, want only node1", name, got)
		}
	}
}

// Each alive message may announce a new node. The list of nodes must stay limited.
func TestGossip_ManyForgedNodes_AreLimited(t *testing.T) {
	key := newKey(t)
	n1 := start(t, key, "node1", nil)
	a := hostile.Gossip{Key: key, Label: "c1", Addr: n1.Addr()}
	meta, err := cluster.NewMeta("r", "a", "c", "v").Encode()
	if err != nil {
		t.Fatal(err)
	}
	const forged = 3 * cluster.MaxPeers
	for i := 0; i < forged; {
		var packets [][]byte
		for range 64 {
			name := fmt.Sprintf("n%d~1", i)
			packets = append(packets, a.Packet(t, msg(hostile.TypeAlive, field("Incarnation", 1),
				field("Node", name), field("Addr", []byte{0xa4, 127, 0, 0, 1}), field("Port", 1),
				field("Meta", string(meta)), field("Vsn", []byte{0xa6, 1, 5, 2, 0, 0, 0}))))
			i++
		}
		a.SendPackets(t, packets...)
	}
	if got := n1.Known(); got > cluster.MaxPeers+1 || got < 100 {
		t.Errorf("got %d nodes in the list of the library, want 100 to %d", got, cluster.MaxPeers+1)
	}
	n2 := start(t, key, "node2", nil)
	if _, err := n2.Join([]string{n1.Addr()}); err != nil {
		t.Errorf("join: got %v, want nil", err)
	}
}

// Silent connections, and connections that send half of a message, do not prevent nodes from
// joining, and use few descriptors.
func TestGossip_ManyConnections_NodeCanStillJoin(t *testing.T) {
	key := newKey(t)
	half := hostile.Gossip{Key: key, Label: "c1"}.Stream(t, 1, make([]byte, 99))[:30]
	for name, first := range map[string][]byte{"silent": nil, "half": half} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			metrics := cluster.NewMetrics(reg)
			n1 := start(t, key, "node1", func(c *cluster.Config) { c.Metrics = metrics })
			var conns []net.Conn
			for range 300 {
				c, err := net.Dial("tcp", n1.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				_, _ = c.Write(first)
				conns = append(conns, c)
			}
			n2 := start(t, key, "node2", nil)
			if _, err := n2.Join([]string{n1.Addr()}); err != nil {
				t.Errorf("join: got %v, want nil", err)
			}
			// The node closes the oldest connections immediately, not when their message times out.
			for _, c := range conns[:300-cluster.MaxWaiting] {
				_ = c.SetReadDeadline(time.Now().Add(longStop))
				if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
					t.Fatalf("got %v, want the end of the connection", err)
				}
			}
			await.Until(t, "the displaced connections to be counted", func() bool {
				return refusedFor(t, reg, "displaced")+refusedFor(t, reg, "silent") >= 300-cluster.MaxWaiting
			})
			if got := refusedFor(t, reg, "displaced"); got < 300-cluster.MaxWaiting {
				t.Errorf("got %v connections displaced, want at least %d", got, 300-cluster.MaxWaiting)
			}
		})
	}
}

// refusedFor returns how many messages and connections were refused for a reason.
func refusedFor(t *testing.T, g prometheus.Gatherer, reason string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "revoked_gossip_refused_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
