package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"revoked"
)

type grantList struct {
	Grants []map[string]any `json:"grants"`
	Next   *string          `json:"next"`
}

func (b *bench) listGrants(t testing.TB, who, query string) (int, grantList, string) {
	t.Helper()
	w := b.do(call{method: "GET", path: "/v1/grants" + query, auth: as(who), contentType: "-"})
	var list grantList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, list, w.Body.String()
}

func TestGrants_List_IsPagedToTheEnd(t *testing.T) {
	b := newBench(t)
	for k := range 250 {
		b.pair(t, fmt.Sprintf("-%03d/&", k), "c2")
	}
	if _, err := b.node.DeleteGrant(t.Context(), actorOf(b, "admin"), "g-007/&", "stolen"); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	seen, after := map[string]bool{}, ""
	for {
		status, list, raw := b.listGrants(t, "admin", "?client_id=c2&subject=alice"+after)
		if status != 200 {
			t.Fatalf("got %d %s, want 200", status, raw)
		}
		for _, g := range list.Grants {
			id := g["grant_id"].(string)
			if seen[id] || g["client_id"] != "c2" || g["tokens"] != nil || g["token_count"] != 2.0 ||
				(g["revoked"] != nil) != (id == "g-007/&") {
				t.Errorf("got %v, want a grant of c2 once, without its tokens", g)
			}
			seen[id] = true
		}
		sizes = append(sizes, len(list.Grants))
		if list.Next == nil {
			break
		}
		after = "&after=" + url.QueryEscape(*list.Next)
	}
	if got := fmt.Sprint(sizes); got != "[100 100 51]" || len(seen) != 251 { // and g2
		t.Errorf("got pages of %s with %d grants, want 251", got, len(seen))
	}
	_, list, raw := b.listGrants(t, "admin", "?client_id=c2&state=revoked&limit=1000")
	if len(list.Grants) != 1 || list.Grants[0]["state"] != "revoked" || list.Next != nil {
		t.Errorf("revoked: got %s, want one grant", raw)
	}
	if _, _, raw := b.listGrants(t, "admin", "?subject=nobody"); strings.TrimSpace(raw) != `{"grants":[]}` {
		t.Errorf("nobody: got %s, want no grants", raw)
	}
}

func TestGrants_BadQueries_AreRefused(t *testing.T) {
	b := newBench(t)
	for query, want := range map[string]int{
		"": 400, "?state=active": 400, "?grant_id=g1": 400, "?client_id=": 400, "?limit=10": 400,
		"?subject=alice&limit=0": 400, "?subject=alice&limit=1001": 400, "?subject=alice&limit=x": 400,
		"?subject=alice&state=rotated": 400, "?subject=alice&subject=bob": 400, "?subject=alice&after=a&after=b": 400,
		"?subject=" + strings.Repeat("x", 257): 400, "?subject=%zz": 400,
		"?subject=alice&limit=1000&state=active": 200, "?session=s1": 200, "?issuer=https://as.example": 200,
	} {
		if status, _, raw := b.listGrants(t, "admin", query); status != want {
			t.Errorf("%.60s: got %d %s, want %d", query, status, raw, want)
		}
	}
	for _, who := range []string{"iss", "rs1", "c1"} {
		if status, _, raw := b.listGrants(t, who, "?subject=alice"); status != 403 {
			t.Errorf("%s: got %d %s, want 403", who, status, raw)
		}
	}
	b.node.fail = func(method string) error {
		if method == "Grants" {
			return revoked.ErrNoLeader
		}
		return nil
	}
	if status, _, raw := b.listGrants(t, "admin", "?subject=alice"); status != 503 {
		t.Errorf("without a leader: got %d %s, want 503", status, raw)
	}
}
