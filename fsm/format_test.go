package fsm_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
)

var update = flag.Bool("update", false, "write missing golden files; existing files never change")

// goldenSnapshot compares the backup of m with a golden file and returns the bytes of the file.
func goldenSnapshot(t *testing.T, m *machine, name string) []byte {
	t.Helper()
	got, path := m.backup(), filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *update {
		want, err = got, os.WriteFile(path, got, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("snapshot: got %d bytes that differ, want the %d golden bytes", len(got), len(want))
	}
	return want
}

func TestWriteSnapshot_FixedHistory_GoldenBytes(t *testing.T) {
	m := lived(t)
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(goldenSnapshot(t, m, "snapshot-1")))); err != nil {
		t.Fatal(err)
	}
	r.now = m.now
	r.want("a-3", revoked.Active)
	r.want("a-1", revoked.Dead)
}

func TestWriteSnapshot_Admissions_GoldenBytes(t *testing.T) {
	m := admitted(t, command.RegisterRules)
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(goldenSnapshot(t, m, "snapshot-admissions")))); err != nil {
		t.Fatal(err)
	}
	if a, ok := r.f.Admission("node6"); !ok || a.State != revoked.Barred || a.Reason != "broken" {
		t.Errorf("got %+v, %v, want node6 barred", a, ok)
	}
}

func TestWriteSnapshot_JoinKeys_GoldenBytes(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	for _, id := range []string{"open", "used"} {
		m.must(m.keyToken(id, id+" key", ""))
	}
	m.must(command.JoinWithKeyOp("node4", revoked.DigestToken("used key")))
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(goldenSnapshot(t, m, "snapshot-join-keys")))); err != nil {
		t.Fatal(err)
	}
	if a, ok := r.f.Admission("node4"); !ok || a.State != revoked.Joined || a.JoinToken != "used" {
		t.Errorf("got %+v, %v, want node4 joined with its token", a, ok)
	}
	if v, ok := r.f.JoinToken("open"); !ok || !v.HasKey || v.UsedBy != "" {
		t.Errorf("got %+v, %v, want an open token with a key", v, ok)
	}
}

func FuzzInspectSnapshot(f *testing.F) {
	good := lived(f).backup()
	f.Add(good)
	f.Add(good[:100])
	f.Add(admitted(f).backup())
	f.Add([]byte("RVKDSNAP\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Add([]byte("RVKDSNAP\x00\x00\x00\x01\x00\x00\x00\x00\x7f\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := snapshot.Read(bytes.NewReader(b), nil)
		if err == nil && h.Bytes != int64(len(b)) {
			t.Fatalf("got a snapshot of %d bytes, want %d", h.Bytes, len(b))
		}
	})
}

// FuzzApply applies arbitrary commands: no rule may panic or report a broken state.
func FuzzApply(f *testing.F) {
	names, err := filepath.Glob("command/testdata/*.command")
	if err != nil || len(names) == 0 {
		f.Fatalf("golden commands: got %v, %v", names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[1], b[2:])
	}
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		data := append([]byte{1, typ}, body...)
		if _, err := command.Decode(data); err != nil {
			return
		}
		m := newMachine(t)
		m.register(pair("1"))
		l := m.entry(&command.Tick{})
		l.Data = data
		for range 2 {
			m.f.Apply(l)
			l.Index++
		}
		if len(m.fatal) != 0 {
			t.Fatalf("fatal: got %v, want none", m.fatal)
		}
		m.backup()
	})
}
