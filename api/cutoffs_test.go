package api_test

import (
	"fmt"
	"strings"
	"testing"

	"revoked"
)

func TestCutoffs_Post_RevokesMatching(t *testing.T) {
	b := newAdminBench(t)
	for i := range 3 {
		if got := b.do(t, "issuer", "POST", "/v1/grants", "",
			pairBody(fmt.Sprint("g", i), "app", fmt.Sprint("a", i), fmt.Sprint("r", i))); got.status != 201 {
			t.Fatal(got)
		}
	}
	post := func(body string) reply { return b.do(t, "admin", "POST", "/v1/revocations", "", body) }
	dry := post(`{"subject":"alice","client_id":"app","dry_run":true}`)
	if dry.status != 200 || dry.field(t, "matched") != 3.0 {
		t.Errorf("dry run: got %d %s, want 200 and matched 3", dry.status, dry.body)
	}
	off := post(`{"subject":"alice","expect":2}`)
	if off.status != 409 || off.field(t, "matched") != 3.0 {
		t.Errorf("expect 2: got %d %s, want 409 and matched 3", off.status, off.body)
	}
	checkProblem(t, "expect", off)
	if s, _ := b.node.Status(t.Context(), revoked.DigestToken("a0"), "rs1"); s.Verdict != revoked.Active {
		t.Errorf("after a dry run and a refused cut-off: got verdict %d, want active", s.Verdict)
	}
	got := post(`{"subject":"alice","expect":3,"reason":"stolen laptop"}`)
	if got.status != 200 || got.field(t, "matched") != 3.0 || got.field(t, "index").(float64) == 0 {
		t.Errorf("got %d %s, want 200", got.status, got.body)
	}
	if s, _ := b.node.Status(t.Context(), revoked.DigestToken("a0"), "rs1"); s.Verdict != revoked.Dead {
		t.Errorf("got verdict %d, want Dead", s.Verdict)
	}
	if got := post(`{"subject":"nobody"}`); got.status != 200 || strings.Contains(got.body, "matched") {
		t.Errorf("got %d %s, want 200 without matched", got.status, got.body)
	}
	view := b.do(t, "admin", "GET", "/v1/grants/g0", "", "")
	if end, _ := view.field(t, "revoked").(map[string]any); end["reason"] != "stolen laptop" || end["cutoff"] != true {
		t.Errorf("got %s, want the cut-off shown", view.body)
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"dry_run":true}`: 400, `{"subject":""}`: 400, `{"subject":"a","client_id":""}`: 400,
		`{"subject":"a","issued_before":"now"}`:                       400,
		`{"subject":"a","reason":"` + strings.Repeat("x", 257) + `"}`: 400, `{"subject":"a","expect":-1}`: 400,
		`{"subject":"a","expect":1.5}`: 400,
		`{"user":"a"}`:                 400, `{"subject":"a","issued_before":250000000000}`: 422,
		`{"subject":"a","dry_run":"yes"}`: 400,
		``:                                415,
	} {
		if got := post(body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
}
