package fsm_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

func TestPutClient_BadRequests_Refused(t *testing.T) {
	m := newMachine(t)
	admin, _ := m.f.Client("admin")
	change := func(f func(c *revoked.Client)) *revoked.Client {
		c := *admin
		f(&c)
		return &c
	}
	for _, tt := range []struct {
		name string
		op   func() *command.Op
		err  error
	}{
		{"disable the last administrator", func() *command.Op {
			return command.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Disabled = true }),
				admin.Version)
		}, revoked.ErrUnprocessable},
		{"demote the last administrator", func() *command.Op {
			return command.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Roles = nil }), admin.Version)
		}, revoked.ErrUnprocessable},
		{"remove the secrets of the last administrator", func() *command.Op {
			return command.PutClientOp(m.by("admin"), change(func(c *revoked.Client) { c.Secrets = nil }),
				admin.Version)
		}, revoked.ErrUnprocessable},
		{"delete the last administrator", func() *command.Op {
			return command.DeleteClientOp(m.by("admin"),
				"admin")
		}, revoked.ErrUnprocessable},
		{"existing id", func() *command.Op { return command.PutClientOp(m.by("admin"), confidential("app"), 0) },
			revoked.ErrConflict},
		{"old version", func() *command.Op { return command.PutClientOp(m.by("admin"), confidential("app"), 77) },
			revoked.ErrConflict},
		{"unknown id", func() *command.Op { return command.PutClientOp(m.by("admin"), confidential("ghost"), 1) },
			revoked.ErrNotFound},
		{"issuer as actor", func() *command.Op { return command.PutClientOp(m.by("issuer"), confidential("x"), 0) },
			revoked.ErrForbidden},
		{"unknown role", func() *command.Op {
			return command.PutClientOp(m.by("admin"), confidential("x", "root"),
				0)
		}, revoked.ErrInvalid},
		{"unknown client type", func() *command.Op {
			c := confidential("x")
			c.Type = "secret"
			return command.PutClientOp(m.by("admin"), c, 0)
		}, revoked.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantErr(t, m.do(tt.op())[0].Err, tt.err)
		})
	}
	m.must(command.PutClientOp(m.by("admin"), confidential("x", revoked.RoleAdmin), 0))
	if got, _ := m.f.Client("x"); got == nil || got.Version != uint64(len(m.log)) || got.CreatedAt != m.now {
		t.Errorf("got %+v, want version %d and creation at %d", got, len(m.log), m.now)
	}
	m.must(command.DeleteClientOp(m.by("admin"), "admin"))
	if _, ok := m.f.Client("admin"); ok {
		t.Error("deleted administrator: got a record, want none")
	}
	ids := ""
	for _, c := range m.f.Clients() {
		ids += c.ID + " "
	}
	if ids != "app issuer issuer2 other rs x " {
		t.Errorf("got clients %q, want them sorted and without admin", ids)
	}
}

func TestPutSettings_Bounds_AndLeaseCeiling(t *testing.T) {
	m := newMachine(t)
	s := m.f.Settings()
	s.LeaseDuration = 10 * time.Second
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	if got := m.f.Settings().LeaseCeiling; got != 0 {
		t.Errorf("ceiling after an increase: got %v, want 0", got)
	}
	wantErr(t, m.do(command.PutSettingsOp(m.by("admin"), s, s.Version))[0].Err, revoked.ErrConflict)
	s = m.f.Settings()
	s.LeaseDuration = time.Second
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	if got := m.f.Settings(); got.LeaseDuration != time.Second || got.LeaseCeiling != 10*time.Second ||
		got.Version != uint64(len(m.log)) {
		t.Errorf("after a decrease: got %+v, want the ceiling of the longer lease", got)
	}
	m.later(2 * time.Hour)
	if got := m.f.Settings(); got.LeaseCeiling != 0 {
		t.Errorf("ceiling after two hours: got %v, want 0", got.LeaseCeiling)
	}
	s = m.f.Settings()
	s.MaxClockSkew = 0
	wantErr(t, m.do(command.PutSettingsOp(m.by("admin"), s, s.Version))[0].Err, revoked.ErrUnprocessable)
	wantErr(t, m.do(command.PutSettingsOp(m.by("issuer"), s, s.Version))[0].Err, revoked.ErrUnprocessable)
	m.sameAs(m.replayed(3))
}

// invalid returns a record that revoked.ValidateClient refuses, but that a bootstrap of an older
// version applied.
func invalid(id string) *revoked.Client {
	c := confidential(id)
	c.Issuers = []string{"https://as.example"}
	return c
}

// repeated returns a record that a bootstrap of an older version skipped.
func repeated(id string) *revoked.Client {
	return confidential(id, revoked.RoleAdmin, revoked.RoleAdmin)
}

func TestPutClient_InvalidRecord_Refused(t *testing.T) {
	m := newMachine(t)
	wantErr(t, m.do(command.PutClientOp(m.by("admin"), invalid("x"), 0))[0].Err, revoked.ErrUnprocessable)
	app, _ := m.f.Client("app")
	wantErr(t, m.do(command.PutClientOp(m.by("admin"), invalid("app"), app.Version))[0].Err, revoked.ErrUnprocessable)
}

// Logs of older versions contain changes of invalid records, for instance a new secret for a record
// from a bootstrap file.
func TestPutClient_InvalidSinceBootstrap_IsApplied(t *testing.T) {
	m := empty(t)
	m.apply(&command.Bootstrap{ClusterId: "c-1", Clients: []*command.ClientRecord{
		command.ClientMessage(confidential("admin", revoked.RoleAdmin)), command.ClientMessage(invalid("old")),
	}})
	old, ok := m.f.Client("old")
	if !ok {
		t.Fatal("client old: got no record, want one")
	}
	changed := *old
	changed.Secrets = append(slices.Clone(changed.Secrets), changed.Secrets[0])
	m.must(command.PutClientOp(m.by("admin"), &changed, old.Version))
	m.sameAs(m.replayed(1))
}

func TestBootstrap_SkippedRecords_Logged(t *testing.T) {
	settings := command.SettingsMessage(revoked.DefaultSettings())
	settings.CutoffRetention, settings.LateRegistrationWindow = int64(time.Hour), int64(24*time.Hour)
	valid := command.ClientMessage(confidential("app"))
	for _, tt := range []struct {
		name    string
		cmd     *command.Bootstrap
		clients int
		logged  string
	}{
		{"valid", &command.Bootstrap{Clients: []*command.ClientRecord{valid}}, 1, ""},
		{"repeated role", &command.Bootstrap{Clients: []*command.ClientRecord{command.ClientMessage(repeated("x")),
			valid}}, 1, "client=x"},
		{"repeated id", &command.Bootstrap{Clients: []*command.ClientRecord{valid, valid}}, 1, "client=app"},
		{"no client is left", &command.Bootstrap{Clients: []*command.ClientRecord{command.ClientMessage(repeated("x"))}}, 0,
			"without any client"},
		{"contradictory settings", &command.Bootstrap{Settings: settings, Clients: []*command.ClientRecord{valid}},
			1, "settings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logs bytes.Buffer
			m := &machine{t: t, dir: t.TempDir(), now: start, logger: slog.New(slog.NewTextHandler(&logs, nil))}
			m.open()
			defer m.f.Close()
			tt.cmd.ClusterId = "c-1"
			m.apply(tt.cmd)
			if n := len(m.f.Clients()); n != tt.clients {
				t.Errorf("got %d clients, want %d", n, tt.clients)
			}
			got := m.f.Settings() // members of version 0.1 have applied these
			if got.CutoffRetention != revoked.DefaultSettings().CutoffRetention || got.LeaseDuration != 2*time.Second {
				t.Errorf("got settings %+v, want the defaults of version 0.1", got)
			}
			if got := logs.String(); !strings.Contains(got, tt.logged) || tt.logged == "" && got != "" {
				t.Errorf("got log %q, want %q in it", got, tt.logged)
			}
			if refused := command.AdmitBootstrap(tt.cmd) != nil; refused != (tt.logged != "") {
				t.Errorf("AdmitBootstrap: got refused %t, want %t", refused, tt.logged != "")
			}
		})
	}
}
