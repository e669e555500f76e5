package fsm_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
	"revoked/fsm"
)

var update = flag.Bool("update", false, "write golden files that are missing; existing ones are never changed")

// samples are commands with every field set, as members of any version must read them.
func samples() []struct {
	name string
	typ  fsm.Type
	msg  proto.Message
} {
	by := revoked.Actor{ClientID: "admin", Version: 7, Admin: true}
	client := confidential("app", revoked.RoleIssuer)
	client.Audiences, client.Issuers, client.AllowPublicRevocation, client.Disabled = []string{"x"}, []string{"i"}, true, true
	client.CreatedAt, client.Version = start, 9
	client.Secrets[0].ExpiresAt = start
	reg := pair("1")
	reg.Tokens[0].CNF = []byte(`{"jkt":"x"}`)
	settings := revoked.DefaultSettings()
	settings.Version, settings.LeaseCeiling = 5, time.Second
	return []struct {
		name string
		typ  fsm.Type
		msg  proto.Message
	}{
		{"batch", fsm.TypeBatch, &fsm.Batch{Stamp: int64(start), Ops: []*fsm.Op{
			fsm.RegisterOp(by, reg), fsm.RevokeOp(by, digest("a-1"), "why"), fsm.DeleteGrantOp(by, "g-1", "why"),
			fsm.CutoffOp(by, revoked.Selector{ClientID: "c", Subject: "s", Session: "n", GrantID: "g", Issuer: "i"}, start, "why"),
			fsm.PutClientOp(by, client, 9), fsm.DeleteClientOp(by, "app"), fsm.PutSettingsOp(by, settings, 5),
		}}},
		{"epoch", fsm.TypeEpoch, &fsm.Epoch{Stamp: int64(start), Term: 3, Node: "node1"}},
		{"epoch-recovered", fsm.TypeEpoch, &fsm.Epoch{Stamp: int64(start), Term: 3, Node: "node1", EndsBefore: int64(start), Reason: "why"}},
		{"tick", fsm.TypeTick, &fsm.Tick{Stamp: int64(start)}},
		{"bootstrap", fsm.TypeBootstrap, &fsm.Bootstrap{
			Stamp: int64(start), ClusterId: "c-1", Settings: fsm.SettingsMessage(settings), Clients: []*fsm.ClientRecord{fsm.ClientMessage(client)},
		}},
		{"expire", fsm.TypeExpire, &fsm.Expire{Stamp: int64(start), Before: int64(start), Limit: 10}},
		{"reap", fsm.TypeReap, &fsm.Reap{Stamp: int64(start), Limit: 10}},
	}
}

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes that are not the %d golden ones", name, len(got), len(want))
	}
	return want
}

func TestCommandsAreTheGoldenBytes(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			b, err := fsm.Encode(s.typ, s.msg)
			if err != nil {
				t.Fatal(err)
			}
			typ, msg, err := fsm.Decode(golden(t, s.name+".command", b))
			if err != nil || typ != s.typ || !proto.Equal(msg, s.msg) {
				t.Errorf("got %s %v, %v, want %v", typ, msg, err, s.msg)
			}
		})
	}
}

func TestEncodeRefusesAnotherMessage(t *testing.T) {
	_, err := fsm.Encode(fsm.TypeTick, &fsm.Epoch{})
	wantErr(t, err, revoked.ErrInvalid)
	_, err = fsm.Encode(99, &fsm.Epoch{})
	wantErr(t, err, revoked.ErrInvalid)
}

// TestUnknownFieldsAreFoundAtEveryDepth puts a field of the future into each message of each sample in
// turn: the check is written out by hand, and this holds it against the descriptors.
func TestUnknownFieldsAreFoundAtEveryDepth(t *testing.T) {
	tested := map[protoreflect.FullName]bool{}
	for _, s := range samples() {
		for i := 0; ; i++ {
			msg := proto.Clone(s.msg)
			n := 0
			var poisoned protoreflect.FullName
			walk(msg.ProtoReflect(), func(m protoreflect.Message) {
				if n == i {
					m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 1))
					poisoned = m.Descriptor().FullName()
				}
				n++
			})
			if poisoned == "" {
				break
			}
			tested[poisoned] = true
			b, err := fsm.Encode(s.typ, msg)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := fsm.Decode(b); err == nil {
				t.Errorf("%s: an unknown field in %s went through", s.name, poisoned)
			}
		}
	}
	all := fsm.File_fsm_command_proto.Messages()
	for i := range all.Len() {
		if name := all.Get(i).FullName(); !tested[name] && all.Get(i).Name() != "SnapshotHead" {
			t.Errorf("no sample holds a %s", name)
		}
	}
}

func walk(m protoreflect.Message, fn func(protoreflect.Message)) {
	fn(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), fn)
			}
		default:
			walk(v.Message(), fn)
		}
		return true
	})
}

// goldenMachine is a state that only the rules and the formats decide.
func goldenMachine(t testing.TB) *machine { return lived(t) }

func TestSnapshotIsTheGoldenBytes(t *testing.T) {
	m := goldenMachine(t)
	want := golden(t, "snapshot-1", m.backup())
	r := empty(t)
	if err := r.f.Restore(readCloser{bytes.NewReader(want)}); err != nil {
		t.Fatal(err)
	}
	r.now = m.now
	r.want("a-3", revoked.Active)
	r.want("a-1", revoked.Dead)
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func FuzzDecodeCommand(f *testing.F) {
	for _, s := range samples() {
		b, err := fsm.Encode(s.typ, s.msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		typ, msg, err := fsm.Decode(b)
		if err != nil {
			return
		}
		again, err := fsm.Encode(typ, msg)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		_, same, err := fsm.Decode(again)
		if err != nil || !proto.Equal(msg, same) {
			t.Fatalf("decode what was encoded: %v", err)
		}
	})
}

func FuzzInspectSnapshot(f *testing.F) {
	m := goldenMachine(f)
	good := m.backup()
	f.Add(good)
	f.Add(good[:100])
	f.Add([]byte("RVKDSNAP\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Add([]byte("RVKDSNAP\x00\x00\x00\x01\x00\x00\x00\x00\x7f\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := fsm.InspectSnapshot(bytes.NewReader(b))
		if err == nil && h.Bytes != int64(len(b)) {
			t.Fatalf("took %d bytes of %d", h.Bytes, len(b))
		}
	})
}

// FuzzApply takes bytes for operations and applies them: no rule may panic or report a broken state,
// whatever is asked for in whatever order.
func FuzzApply(f *testing.F) {
	for _, s := range samples() {
		b, err := proto.Marshal(s.msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(s.typ), b)
	}
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		if _, _, err := fsm.Decode(append([]byte{1, typ}, body...)); err != nil {
			return
		}
		m := newMachine(t)
		m.register(pair("1"))
		l := m.entry(fsm.TypeTick, &fsm.Tick{})
		l.Data = append([]byte{1, typ}, body...)
		for range 2 {
			m.f.Apply(l)
			l.Index++
		}
		if len(m.fatal) != 0 {
			t.Fatalf("fatal: %v", m.fatal)
		}
		m.backup()
	})
}
