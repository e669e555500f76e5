package cluster_test

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"revoked/cluster"
	"revoked/internal/await"
)

func TestMeta_GoldenBytes(t *testing.T) {
	want, err := os.ReadFile("testdata/meta.golden")
	if err != nil {
		t.Fatal(err)
	}
	m := cluster.NewMeta("eu", "https://a:1", "a:2", "v1")
	got, err := m.Encode()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	if back, err := cluster.DecodeMeta(want); err != nil || back != m {
		t.Errorf("got %+v, %v, want %+v", back, err, m)
	}
}

func TestDecodeMeta_MalformedMetadata_IsRejected(t *testing.T) {
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"no values", "\x01", true},
		{"tag of a newer node", "\x01\x01\x02eu\x63\x03new", true},
		{"no bytes", "", false},
		{"other version", "\x02\x01\x02eu", false},
		{"tag without length", "\x01\x01", false},
		{"value cut short", "\x01\x01\x05eu", false},
		{"repeated tag", "\x01\x01\x01a\x01\x01b", false},
		{"tags out of order", "\x01\x02\x01a\x01\x01b", false},
		{"empty value", "\x01\x01\x00", false},
		{"line break", "\x01\x01\x01\n", false},
		{"escape sequence", "\x01\x01\x02\x1b[", false},
		{"bad UTF-8", "\x01\x01\x01\xff", false},
		{"too long", "\x01" + strings.Repeat("\x63\x01a", 1) + strings.Repeat("x", 400), false},
	} {
		if _, err := cluster.DecodeMeta([]byte(c.in)); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok: %v", c.name, err, c.ok)
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	for _, seed := range []string{"", "\x01", "\x01\x01\x02eu\x02\x0bhttps://a:1", "\x01\x63\x03new", "\x02",
		"\x01\x01\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := cluster.DecodeMeta(in)
		if err != nil {
			return
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
		if again, err := cluster.DecodeMeta(b); err != nil || again != m {
			t.Fatalf("got %+v, %v, want %+v", again, err, m)
		}
	})
}

func FuzzSplitName(f *testing.F) {
	for _, seed := range []string{"node1~i1", "~", "a~b~c", "a/b~c", "\x00~x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		node, instance, err := cluster.SplitName(in)
		if err == nil && cluster.GossipName(node, instance) != in {
			t.Errorf("got %q from %q and %q, want %q", cluster.GossipName(node, instance), node, instance, in)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("# comment\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, in string) {
		key, err := cluster.ParseKey(in)
		if err != nil {
			return
		}
		if again, err := cluster.ParseKey(cluster.FormatKey(key)); err != nil || !bytes.Equal(again, key) {
			t.Errorf("got %v after formatting, want the same key", err)
		}
	})
}

func TestParseKey_EachText_AcceptsOneKeyAlone(t *testing.T) {
	const good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"one line", good, true},
		{"comments, empty lines, CRLF", "# a\r\n\r\n" + good + "\r\n# b\r\n", true},
		{"only a comment", "# only a comment\n", false},
		{"two keys", good + "\n" + good, false},
		{"a space before", " " + good, false},
		{"a space after", "# a\n" + good + " \r\n", false},
		{"a tab after", good + "\t", false},
		{"16 bytes", "AAECAwQFBgcICQoLDA0ODw==", false},
		{"not base64", strings.Repeat("!", 44), false},
		{"huge file", strings.Repeat("#", 1<<20), false},
	} {
		key, err := cluster.ParseKey(c.in)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok: %v", c.name, err, c.ok)
		}
		if err == nil && len(key) != cluster.KeySize {
			t.Errorf("%s: got %d bytes, want %d", c.name, len(key), cluster.KeySize)
		}
		if err != nil && strings.Contains(err.Error(), "AAEC") {
			t.Errorf("%s: got %q, want it without the key", c.name, err)
		}
	}
	a, b := newKey(t), newKey(t)
	if bytes.Equal(a, b) {
		t.Error("got two equal keys, want different ones")
	}
	if got, err := cluster.ParseKey(cluster.FormatKey(a)); err != nil || !bytes.Equal(got, a) {
		t.Errorf("got %v after formatting, want the same key", err)
	}
}

func node(name string, port int) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: uint16(port), Meta: []byte{1}}
}

func TestPeerBook_Full_KeepsAlivePeers(t *testing.T) {
	b := cluster.NewBook()
	b.NotifyJoin(node("keep~1", 1))
	for i := range 3 * cluster.MaxPeers {
		n := node("n"+strconv.Itoa(i)+"~1", 2)
		b.NotifyJoin(n)
		b.NotifyLeave(n)
	}
	if got := b.Known(); got > cluster.MaxPeers {
		t.Errorf("got %d known, want at most %d", got, cluster.MaxPeers)
	}
	if p := find(b.Members(), "keep"); !p.Alive {
		t.Error("got the live node evicted, want it kept")
	}
	for _, bad := range []*memberlist.Node{node("nameless", 1), {Name: "a~b", Meta: []byte("junk")}} {
		if b.NotifyAlive(bad) == nil {
			t.Errorf("%q: got nil, want an error", bad.Name)
		}
	}
}

func TestLog_KeepsLevels(t *testing.T) {
	log := &await.Log{}
	cluster.LogLine(log.Logger(),
		"[DEBUG] memberlist: one", "[INFO] memberlist: two", "[WARN] memberlist: three", "[ERR] memberlist: four", "five",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=1",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=2")
	for _, want := range []string{
		`level=DEBUG msg="gossip: one"`, `level=INFO msg="gossip: two"`, `level=WARN msg="gossip: three"`,
		`level=ERROR msg="gossip: four"`, `level=INFO msg="gossip: five"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("got log:\n%s\nwant %s", log, want)
		}
	}
	if got := strings.Count(log.String(), "gossip_key_file"); got != 1 {
		t.Errorf("got advice %d times, want once a minute", got)
	}
}
