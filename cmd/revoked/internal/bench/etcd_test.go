package bench

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"revoked/cmd/revoked/internal/bench/load"
)

// fakeEtcd answers like a node of etcd that counts one key for each call. It returns the paths of
// the calls.
func fakeEtcd(t *testing.T, status string, answer []byte) (load.Target, func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan string, 10_000)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Protocols: protocols, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 ||
				r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
				t.Errorf("got the call %s with %d bytes, headers %v, error %v", r.URL.Path, len(body), r.Header, err)
			}
			calls <- r.URL.Path
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			_, _ = w.Write(load.FrameGRPC(nil, answer))
			w.Header().Set("Grpc-Status", status)
			w.Header().Set("Grpc-Message", "etcdserver: request timed out")
		}),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return load.Target{Addr: ln.Addr().String(), GRPC: etcdReady()}, func() (paths []string) {
		for len(calls) > 0 {
			paths = append(paths, <-calls)
		}
		return paths
	}
}

func counted(field protowire.Number, n uint64) []byte {
	header := appendBytes(nil, 1, []byte{8, 1})
	return protowire.AppendVarint(protowire.AppendTag(header, field, protowire.VarintType), n)
}

func TestEtcd_Loads_CountOnlySuccesses(t *testing.T) {
	for _, c := range []struct {
		name, status string
		answer       []byte
		good         bool
	}{
		{"one key deleted", "0", counted(2, 1), true},
		{"no key deleted", "0", counted(2, 0), false},
		{"no count", "0", nil, false},
		{"gRPC error", "14", counted(2, 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			node, calls := fakeEtcd(t, c.status, c.answer)
			e := &etcd{targets: []load.Target{node}}
			l := e.deletions((&pool{low: 3, high: 103}).each)
			l.Connections, l.Duration = 4, time.Minute
			if c.status != "0" {
				if _, err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "request timed out") {
					t.Errorf("got %v, want the error of the first call", err)
				}
				return
			}
			got, err := l.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			good, bad := got.Requests, got.Failures
			if c.good != (good == 100) || good+bad != 100 {
				t.Errorf("got %d successes and %d failures, want 100 in all, successes: %t", good, bad, c.good)
			}
			deletes := 0
			for _, path := range calls() {
				if path == etcdDelete {
					deletes++
				}
			}
			if deletes != 100 || got.Protocol != "gRPC without TLS" {
				t.Errorf("got %d deletes over %s, want 100 over gRPC", deletes, got.Protocol)
			}
		})
	}
}

func TestEtcd_Fresh_PutsEachKeyOnce(t *testing.T) {
	node, calls := fakeEtcd(t, "0", counted(2, 1))
	e := &etcd{targets: []load.Target{node, node}}
	if err := e.put(t.Context(), 250, true); err != nil {
		t.Fatal(err)
	}
	p, err := e.fresh(t.Context(), 1000)
	if err != nil || p.low != 250 || p.high != 1250 || e.used != 1250 {
		t.Errorf("got keys from %d to %d, %v, want 250 to 1250", p.low, p.high, err)
	}
	txns := 0
	for _, path := range calls() {
		if path == etcdTxn {
			txns++
		}
	}
	if txns < 13 || txns > 16 { // the last transaction of each of two connections may be smaller
		t.Errorf("got %d transactions, want one for 100 keys", txns)
	}
	if a, b := string(etcdKey(nil, 1)), string(etcdKey(nil, 2)); len(a) != 32 || a == b || a != string(etcdKey(nil, 1)) {
		t.Error("got keys that are not 32 bytes, not stable or equal")
	}
}

func TestEtcd_MissingProgram_NamesPackage(t *testing.T) {
	_, err := startEtcd(t.Context(), "no-such-etcd", t.TempDir(), 3, 20_000)
	if err == nil || !strings.Contains(err.Error(), "is etcd-server installed?") {
		t.Errorf("got %v, want the name of the package", err)
	}
}
