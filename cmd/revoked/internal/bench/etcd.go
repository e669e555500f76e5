package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/internal/retry"
)

// AgainstEtcd is the value of Options.Against that compares with an etcd cluster.
const AgainstEtcd = "etcd"

// Calls of etcd's gRPC API (etcd v3, api/etcdserverpb/rpc.proto, service KV).
const (
	etcdRange  = "/etcdserverpb.KV/Range"
	etcdDelete = "/etcdserverpb.KV/DeleteRange"
	etcdTxn    = "/etcdserverpb.KV/Txn"
)

const (
	etcdPortOffset = 400 // offset from the API port of node 1; each node has a client port and a peer port
	etcdLive       = 10_000
	etcdPutsPerTxn = 100 // etcd allows 128 operations in a transaction
)

// An etcd is a cluster of etcd nodes on loopback, without TLS and without users. It holds a key for
// each token: deleting a key stands for a revocation, and a linearizable read for an introspection.
type etcd struct {
	dir       string
	targets   []load.Target
	processes []*devcluster.Process
	logs      []string
	used      uint64 // number of keys put; keys below etcdLive are never deleted
}

// startEtcd starts the nodes with data in a new directory below dir, and puts the keys for the
// reads.
func startEtcd(ctx context.Context, binary, dir string, nodes, firstPort int) (*etcd, error) {
	dir, err := os.MkdirTemp(dir, "etcd-*")
	if err != nil {
		return nil, err
	}
	e := &etcd{dir: dir}
	urls := func(i int) (client, peer string) {
		return fmt.Sprintf("127.0.0.1:%d", firstPort+2*i), fmt.Sprintf("127.0.0.1:%d", firstPort+2*i+1)
	}
	var members []string
	for i := range nodes {
		_, peer := urls(i)
		members = append(members, fmt.Sprintf("etcd%d=http://%s", i+1, peer))
	}
	for i := range nodes {
		client, peer := urls(i)
		name := fmt.Sprintf("etcd%d", i+1)
		log := filepath.Join(dir, name+".log")
		if err := e.startNode(binary, log,
			"--name", name, "--data-dir", filepath.Join(dir, name), "--log-level", "warn", "--logger", "zap",
			"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
			"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
			"--initial-cluster-token", dir, "--quota-backend-bytes", "8589934592"); err != nil {
			e.stop()
			return nil, fmt.Errorf("start %s (is etcd-server installed?): %w", name, err)
		}
		e.targets = append(e.targets, load.Target{Addr: client, GRPC: etcdReady()})
	}
	if err := e.put(ctx, etcdLive, true); err != nil {
		err = fmt.Errorf("fill etcd: %w; the end of its log:\n%s", err, devcluster.LastLines(e.logs[0], 5))
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *etcd) startNode(binary, logFile string, args ...string) error {
	path, err := exec.LookPath(binary)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD_") {
			env = append(env, v)
		}
	}
	p, err := devcluster.Start(&exec.Cmd{
		Path: path, Args: append([]string{"etcd"}, args...), Env: env, Stdout: log, Stderr: log,
	})
	if err != nil {
		return err
	}
	e.processes, e.logs = append(e.processes, p), append(e.logs, logFile)
	return nil
}

// stop stops the nodes and removes their data.
func (e *etcd) stop() {
	for _, p := range e.processes {
		p.Signal(syscall.SIGTERM)
	}
	late := time.After(10 * time.Second)
	for _, p := range e.processes {
		select {
		case <-p.Done():
		case <-late:
			p.Kill()
		}
	}
	_ = os.RemoveAll(e.dir)
}

func (e *etcd) pids() (pids []int) {
	for _, p := range e.processes {
		pids = append(pids, p.PID())
	}
	return pids
}

// fresh puts n new keys and returns their numbers.
func (e *etcd) fresh(ctx context.Context, n uint64) (*pool, error) {
	low := e.used
	err := e.put(ctx, n, false)
	return &pool{low: low, high: e.used}, err
}

// put puts n new keys through all nodes. If starting is set, it retries for up to a minute, until
// the cluster has started.
func (e *etcd) put(ctx context.Context, n uint64, starting bool) error {
	p := &pool{low: e.used, high: e.used + n}
	e.used += n
	var wg sync.WaitGroup
	failed := make([]error, len(e.targets))
	for i, t := range e.targets {
		wg.Go(func() { failed[i] = e.putAt(ctx, t, p, starting) })
	}
	wg.Wait()
	return errors.Join(failed...)
}

func (e *etcd) putAt(ctx context.Context, t load.Target, p *pool, starting bool) error {
	if starting {
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for {
			c, err := t.Dial(waiting)
			if err == nil {
				c.Close()
				break
			}
			if retry.Sleep(waiting, 100*time.Millisecond) != nil {
				return err
			}
		}
	}
	c, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	request := load.NewGRPC(etcdTxn)
	for more := true; more; {
		var txn []byte
		for range etcdPutsPerTxn {
			n, ok := p.take()
			if more = ok; !ok {
				break
			}
			txn = appendPut(txn, n)
		}
		if len(txn) == 0 {
			break
		}
		status, answer, err := c.Do(request, load.FrameGRPC(nil, txn))
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return errors.New(load.Describe(status, answer))
		}
	}
	return nil
}

// etcdKey returns the key of token n: as long as a SHA-256 digest, and spread like one.
func etcdKey(b []byte, n uint64) []byte {
	rng := rand.NewPCG(n, 0)
	for range 4 {
		b = binary.BigEndian.AppendUint64(b, rng.Uint64())
	}
	return b
}

// etcdValue has as many bytes as the product stores for a token.
var etcdValue = bytes.Repeat([]byte{'v'}, 100)

// appendPut appends a put of key n to a TxnRequest: success = 2, RequestOp.request_put = 2,
// PutRequest.key = 1, PutRequest.value = 2.
func appendPut(txn []byte, n uint64) []byte {
	put := appendBytes(appendBytes(nil, 1, etcdKey(nil, n)), 2, etcdValue)
	return appendBytes(txn, 2, appendBytes(nil, 2, put))
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

// keyBodies returns the bodies of a load: a message that names one key, as RangeRequest.key = 1 and
// DeleteRangeRequest.key = 1 do.
func keyBodies(ns numbers) func(int) func() ([]byte, bool) {
	return func(connection int) func() ([]byte, bool) {
		next := ns(connection)
		var key, message, body []byte
		return func() ([]byte, bool) {
			n, ok := next()
			key = etcdKey(key[:0], n)
			message = appendBytes(message[:0], 1, key)
			body = load.FrameGRPC(body[:0], message)
			return body, ok
		}
	}
}

// countIs reports whether a framed message has the value want in a field.
func countIs(body []byte, field protowire.Number, want uint64) bool {
	const prefix = 5
	if len(body) < prefix {
		return false
	}
	for b := body[prefix:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if number == field && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			return n > 0 && v == want
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return false
		}
		b = b[n:]
	}
	return false
}

// deletions returns a load that deletes keys at all nodes. DeleteRangeResponse.deleted is field 2.
func (e *etcd) deletions(keys numbers) load.Load {
	return load.Load{
		Targets: e.targets, Request: load.NewGRPC(etcdDelete), Bodies: keyBodies(keys),
		Good: func(status int, body []byte) bool { return status == http.StatusOK && countIs(body, 2, 1) },
	}
}

// reads returns a load of linearizable reads of existing keys at one node. RangeResponse.count is
// field 4.
func (e *etcd) reads() load.Load {
	return load.Load{
		Targets: e.targets[:1], Request: load.NewGRPC(etcdRange), Bodies: keyBodies(anyOf(etcdLive)),
		Good: func(status int, body []byte) bool { return status == http.StatusOK && countIs(body, 4, 1) },
	}
}

// etcdReady returns the read that shows that a node answers.
func etcdReady() *load.Call {
	return &load.Call{Path: etcdRange, Message: appendBytes(nil, 1, []byte("ready"))}
}
