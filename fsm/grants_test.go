package fsm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// ids reads pages until the last and returns the ids of the grants, and the number of pages.
func (m *machine) ids(q revoked.GrantQuery) (ids []string, pages int) {
	m.t.Helper()
	for {
		page, err := m.f.Grants(m.t.Context(), &q, m.now)
		if err != nil {
			m.t.Fatal(err)
		}
		if len(page.Grants) > q.Limit {
			m.t.Errorf("got %d grants on a page, want at most %d", len(page.Grants), q.Limit)
		}
		for i := range page.Grants {
			if page.Grants[i].Tokens != nil {
				m.t.Errorf("grant %s: got tokens, want none in a list", page.Grants[i].Grant.ID)
			}
			ids = append(ids, page.Grants[i].Grant.ID)
		}
		if pages++; page.Next == "" {
			return ids, pages
		}
		q.After = page.Next
	}
}

func TestGrants_Selectors_AllMustMatch(t *testing.T) {
	m := newMachine(t)
	for k := range 40 {
		r := pair(fmt.Sprintf("%02d", k))
		r.Subject = []string{"alice", "bob"}[k%2]
		r.Session = []string{"s-1", "s-2", "s-3"}[k%3]
		r.Issuer = []string{"https://as.example", "https://x.example"}[k%2]
		m.register(r)
		switch k % 4 {
		case 0:
			m.revoke("app", "a-"+fmt.Sprintf("%02d", k))
		case 1:
			m.must(command.CutoffOp(m.by("admin"), revoked.Selector{GrantID: r.GrantID}, start, ""))
		}
	}
	type selector = revoked.Selector
	for _, tt := range []struct {
		name  string
		sel   selector
		state revoked.TokenState
		want  func(k int) bool
	}{
		{"client", selector{ClientID: "app"}, 0, func(int) bool { return true }},
		{"subject", selector{Subject: "bob"}, 0, func(k int) bool { return k%2 == 1 }},
		{"session", selector{Session: "s-2"}, 0, func(k int) bool { return k%3 == 1 }},
		{"issuer", selector{Issuer: "https://x.example"}, 0, func(k int) bool { return k%2 == 1 }},
		{"subject and session", selector{Subject: "alice", Session: "s-1"}, 0, func(k int) bool { return k%6 == 0 }},
		{"client and issuer", selector{ClientID: "app", Issuer: "https://as.example"}, 0,
			func(k int) bool { return k%2 == 0 }},
		{"none", selector{Subject: "carol"}, 0, func(int) bool { return false }},
		{"active", selector{ClientID: "app"}, revoked.Live, func(k int) bool { return k%4 > 1 }},
		{"revoked", selector{ClientID: "app"}, revoked.Revoked, func(k int) bool { return k%4 < 2 }},
		{"expired", selector{ClientID: "app"}, revoked.Expired, func(int) bool { return false }},
	} {
		var want []string
		for k := range 40 {
			if tt.want(k) {
				want = append(want, fmt.Sprintf("g-%02d", k))
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			got, pages := m.ids(revoked.GrantQuery{Selector: tt.sel, State: tt.state, Limit: limit})
			if !slices.Equal(got, want) {
				t.Errorf("%s, limit %d: got %v, want %v", tt.name, limit, got, want)
			}
			if limit == 1000 && pages != 1 {
				t.Errorf("%s: got %d pages, want 1", tt.name, pages)
			}
		}
	}
	m.now = m.now.Add(48 * time.Hour)
	q := revoked.GrantQuery{Selector: selector{ClientID: "app"}, State: revoked.Expired, Limit: 9}
	if got, _ := m.ids(q); len(got) != 20 {
		t.Errorf("after the expiry: got %d expired grants, want 20", len(got))
	}
}

// A page of which few grants match ends before the last grant, and the next page continues there.
func TestGrants_FewMatches_PagesAreBounded(t *testing.T) {
	const grants = 15_000
	m := newMachine(t)
	for batch := range grants / 500 {
		var ops []*command.Op
		for i := range 500 {
			k := 500*batch + i
			r := pair(fmt.Sprintf("%05d", k))
			r.Tokens = r.Tokens[:1]
			if k == grants-1 {
				r.Issuer = "https://x.example"
			}
			ops = append(ops, command.RegisterOp(m.by("issuer"), r))
		}
		m.do(ops...)
	}
	got, pages := m.ids(revoked.GrantQuery{Selector: revoked.Selector{Issuer: "https://x.example"}, Limit: 100})
	if pages < 2 || !slices.Equal(got, []string{fmt.Sprintf("g-%05d", grants-1)}) {
		t.Errorf("by issuer: got %v in %d pages, want the last grant in some", got, pages)
	}
	sel := revoked.Selector{Subject: "alice", Issuer: "https://x.example"}
	if got, pages := m.ids(revoked.GrantQuery{Selector: sel, Limit: 100}); pages < 2 || len(got) != 1 {
		t.Errorf("by subject and issuer: got %v in %d pages, want the last grant in some", got, pages)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := m.f.Grants(ctx, &revoked.GrantQuery{Selector: sel, Limit: 1}, m.now); !errors.Is(err, gone) {
		t.Errorf("canceled: got %v, want %v", err, gone)
	}
}

// The view of a grant shows a registered token as revoked if its jti was denied under older rules.
func TestView_DeniedJTI_IsRevoked(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.trust(func(i *revoked.Issuer) { i.Issuer = "https://as.example" })
	m.register(pair("1"))
	states := func() string {
		v, err := m.f.View("g-1", m.now)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{v.State.String()}
		for _, tok := range v.Tokens {
			out = append(out, tok.State.String())
		}
		return strings.Join(out, " ")
	}
	if got := states(); got != "active active active" {
		t.Fatalf("before: got %s", got)
	}
	if err := m.revokeJWT("admin", &revoked.JWT{Issuer: "https://as.example", JTI: "jti-a-1"}); err != nil {
		t.Fatal(err)
	}
	if got := states(); got != "active revoked active" {
		t.Errorf("got %s, want the access token revoked", got)
	}
}
