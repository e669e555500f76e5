package api_test

import (
	"math"
	"strings"
	"testing"

	"revoked"
	"revoked/internal/jointoken"
)

func TestAdmit_EachCall_GetsStatus(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n1", Voter: true}}
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "admit", `{"node":"n4","non_voter":true,"ttl":"2h"}`, 200},
		{"POST", "admit", `{"node":"n5"}`, 200},
		{"POST", "admit", `{"node":"n5","ttl":null}`, 200},
		{"DELETE", "admit/n5", "", 200},
		{"DELETE", "admit/n5", "", 200},
		{"DELETE", "admit/n6", "", 404},
		{"DELETE", "admit/a%20b", "", 400},
		{"POST", "admit", ``, 415},
		{"POST", "admit", `{}`, 400},
		{"POST", "admit", `{"node":""}`, 400},
		{"POST", "admit", `{"node":"../n"}`, 400},
		{"POST", "admit", `{"node":"n7","ttl":3600}`, 400},
		{"POST", "admit", `{"node":"n7","ttl":"soon"}`, 400},
		{"POST", "admit", `{"node":"n7","ttl":"0s"}`, 422},
		{"POST", "admit", `{"node":"n7","ttl":"721h"}`, 422},
		{"POST", "admit", `{"node":"n7","voter":true}`, 400},
		{"GET", "admit", "", 405},
	} {
		contentType := ""
		if tt.status == 415 {
			contentType = "text/plain"
		}
		got := b.do(t, "admin", tt.method, "/v1/cluster/"+tt.path, contentType, tt.body)
		if got.status != tt.status {
			t.Errorf("%s %s %s: got %d %s, want %d", tt.method, tt.path, tt.body, got.status, got.body, tt.status)
		}
		if tt.status == 200 && got.field(t, "index").(float64) == 0 {
			t.Errorf("%s %s: got %s, want an index", tt.method, tt.path, got.body)
		}
	}
	got := b.do(t, "admin", "GET", "/v1/cluster/admitted", "", "")
	nodes := got.field(t, "nodes").([]any)
	if len(nodes) != 2 {
		t.Fatalf("got %s, want n1 and n4", got.body)
	}
	member, admitted := nodes[0].(map[string]any), nodes[1].(map[string]any)
	if member["node"] != "n1" || member["state"] != "member" || member["expires_at"] != nil {
		t.Errorf("got %v, want the member n1", member)
	}
	if admitted["node"] != "n4" || admitted["state"] != "admitted" || admitted["non_voter"] != true ||
		admitted["by"] != "admin" || admitted["expires_at"] == nil {
		t.Errorf("got %v, want n4 admitted by admin until a time", admitted)
	}
}

func TestJoinTokens_Token_IsShownOnce(t *testing.T) {
	b := newAdminBench(t)
	made := b.do(t, "admin", "POST", "/v1/cluster/join-tokens", "", `{"node":"n4","non_voter":true,"ttl":"10m"}`)
	token, _ := made.field(t, "token").(string)
	id, _ := made.field(t, "id").(string)
	if made.status != 201 || !jointoken.HasKey(token) || id == "" || made.field(t, "expires_at") == nil {
		t.Fatalf("got %d %s, want 201 with id, token and expires_at", made.status, made.body)
	}
	if at := made.field(t, "expires_at").(float64); at != math.Trunc(at) {
		t.Errorf("got %s, want expires_at in whole seconds", made.body)
	}
	if other := b.do(t, "admin", "POST", "/v1/cluster/join-tokens", "", ""); other.status != 201 {
		t.Errorf("without a body: got %d %s, want 201", other.status, other.body)
	}
	parsed, err := jointoken.Parse(token)
	if err != nil || parsed.CA() != [32]byte{1} {
		t.Errorf("got %v, CA %x, want a token with the digest of the cluster's CA", err, parsed.CA())
	}
	stored, ok := b.node.fsm.JoinToken(id)
	if !ok || stored.Hash != jointoken.Digest(parsed.PublicKey()) || !stored.HasKey || stored.Node != "n4" ||
		!stored.NonVoter || stored.By != "admin" {
		t.Errorf("got %+v, %v, want the token stored by its digest", stored, ok)
	}
	list := b.do(t, "admin", "GET", "/v1/cluster/join-tokens", "", "")
	if list.status != 200 || strings.Contains(list.body, token) || strings.Contains(list.body, stored.Hash.String()) ||
		!strings.Contains(list.body, id) || !strings.Contains(list.body, `"state":"open"`) {
		t.Errorf("got %d %s, want the token without its secret", list.status, list.body)
	}
	for _, want := range []int{200, 200} {
		if got := b.do(t, "admin", "DELETE", "/v1/cluster/join-tokens/"+id, "", ""); got.status != want {
			t.Errorf("delete: got %d %s, want %d", got.status, got.body, want)
		}
	}
	if got := b.do(t, "admin", "DELETE", "/v1/cluster/join-tokens/none", "", ""); got.status != 404 {
		t.Errorf("delete of an unknown id: got %d, want 404", got.status)
	}
	if list := b.do(t, "admin", "GET", "/v1/cluster/join-tokens", "", ""); strings.Contains(list.body, id) {
		t.Errorf("got %s, want no deleted token", list.body)
	}
	for body, want := range map[string]int{
		`{"node":"a b"}`: 400, `{"ttl":"1ms"}`: 422, `{"token":"mine"}`: 400, `[]`: 400,
	} {
		if got := b.do(t, "admin", "POST", "/v1/cluster/join-tokens", "", body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
}

func TestSuffrage_Calls_ReachBackend(t *testing.T) {
	b := newAdminBench(t)
	for _, path := range []string{"promote", "demote"} {
		got := b.do(t, "admin", "POST", "/v1/cluster/"+path, "", `{"node":"n2"}`)
		if got.status != 200 || got.field(t, "index").(float64) == 0 {
			t.Errorf("%s: got %d %s, want 200 {index}", path, got.status, got.body)
		}
		if call, want := b.node.calls[len(b.node.calls)-1], path+" n2 by admin"; call != want {
			t.Errorf("got %s, want %s", call, want)
		}
		for _, body := range []string{`{}`, `{"node":""}`, `{"node":"n","force":true}`} {
			if got := b.do(t, "admin", "POST", "/v1/cluster/"+path, "", body); got.status != 400 {
				t.Errorf("%s %s: got %d, want 400", path, body, got.status)
			}
		}
	}
}
