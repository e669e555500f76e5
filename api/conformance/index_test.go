package conformance_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var writeIndex = flag.Bool("write-index", false, "write docs/standards-tests.md")

// An entry is one line of the index: a row of the tables, its paragraph and its test.
type entry struct{ id, level, title, test string }

func index() (list []entry) {
	add := func(test string, id, level, title string) { list = append(list, entry{id, level, title, test}) }
	rows := func(test string, rows []row) {
		for _, r := range rows {
			add(test, r.id, r.level, r.title)
		}
	}
	scenarios := func(test string, cases []scenario) {
		for _, c := range cases {
			add(test, c.id, c.level, c.title)
		}
	}
	for _, table := range revocationTables() {
		rows("TestOAuth_DefaultOptions_Conforms/"+table.name, table.rows)
	}
	for _, v := range viewRows() {
		add("TestOAuth_DefaultOptions_Conforms/introspection", v.id, v.level, v.title)
	}
	add("TestOAuth_DefaultOptions_Conforms/introspection", "IN-14", "RFC 7662 2.2", "a token that never expires")
	scenarios("TestOAuth_DefaultOptions_Conforms/scenarios", mainScenarios())
	scenarios("TestOAuth_DefaultOptions_Conforms/metadata", metadataScenarios())
	rows("TestOAuth_OtherOptions_Conforms/rows", optionRows())
	scenarios("TestOAuth_OtherOptions_Conforms/scenarios", optionScenarios())
	scenarios("TestOAuth_ClockMoves_Conforms", timeScenarios())
	scenarios("TestCluster_NodeFailures_Conforms", clusterScenarios())
	rows("TestCluster_NodeFailures_Conforms/CL-05", quorumRows())
	add("TestCluster_NodeFailures_Conforms/CL-05", "CL-11", "RFC 7662 4", "introspection without quorum")
	scenarios("TestWire_UnusualBytes_Conforms/rows", wireScenarios())
	for _, group := range []struct {
		name  string
		cases []scenario
	}{{"access", accessScenarios()}, {"clients", clientScenarios()}, {"grants", registrationScenarios()},
		{"explain", explainScenarios()}, {"revocations", cutoffScenarios()},
		{"feed", feedScenarios()}, {"audit", auditScenarios()},
		{"cluster", operatorScenarios()}, {"large grants", largeScenarios()}} {
		scenarios("TestAdminAPI_DefaultOptions_Conforms/"+group.name, group.cases)
	}
	scenarios("TestJWT_TrustedIssuer_Conforms", jwtScenarios())
	for _, p := range proofs() {
		list = append(list, p.entry())
	}
	slices.SortStableFunc(list, func(a, b entry) int { return strings.Compare(a.id, b.id) })
	return list
}

// wanted returns the rows of the tables that require neither a bearer token nor an option that the
// product lacks.
func wanted() []string {
	return strings.Fields(`HP-01 HP-03 HP-04 HP-05 HP-06 HP-07 HP-09 HP-10 HP-11 HP-12 HP-13 HP-14
HT-01 HT-02 HT-03 HT-04 HT-05 HT-06 HT-07 HT-08 HT-09 HT-10 HT-11 HT-12
PR-02 PR-03 PR-04 PR-05 PR-06 PR-07 PR-08 PR-10 PR-11 PR-12
OW-01 OW-02 OW-03 OW-04 OW-05 OW-06 OW-07 OW-08 OW-13 OW-15 OW-16
CA-01 CA-02 CA-03 CA-05 CA-06 CA-07 CA-08 CA-11 CA-12 CA-13 CA-15 CA-16 CA-17 CA-18 CA-19 CA-20
CA-21 CA-22 CA-23 CA-25 CA-26 CA-27 CA-28 CA-29 CA-31 CA-33 CA-34 CA-35 CA-39 CA-41 CA-42
MF-01 MF-02 MF-03 MF-04 MF-05 MF-06 MF-08 MF-09 MF-10 MF-11 MF-12 MF-13 MF-14 MF-15 MF-17 MF-18 MF-19 MF-20 MF-21
TM-02 TM-04 TM-05 TM-07 TM-08 TM-10 TM-11 TM-12 TM-13 TM-14 TM-16 TM-17 TM-18 TM-20 TM-21
CL-01 CL-03 CL-04 CL-05 CL-08 CL-09 CL-11 CL-12 CL-16 CL-17
IN-01 IN-02 IN-03 IN-04 IN-05 IN-07 IN-08 IN-09 IN-10 IN-13 IN-14 IN-21 IN-22 IN-24 IN-25
MD-01 MD-02 MD-04 MD-05 MD-06 MD-08 MD-09 MD-10 MD-11 MD-12 GR-01
JW-01 JW-02 JW-05 JW-06 JW-07 JW-08 JW-09 JW-10 JW-11 JW-12
C25 C26 C27 C28 C29 C30 C31 C32 C33 C34 C35 C36 C37 C38 C39 C40 C41`)
}

// docs/standards-tests.md lists exactly the tested rows, and every wanted row is tested.
func TestIndex_EveryRow_IsListed(t *testing.T) {
	list := index()
	for _, id := range wanted() {
		if !slices.ContainsFunc(list, func(e entry) bool { return e.id == id }) {
			t.Errorf("row %s has no test", id)
		}
	}
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(`# Standards and their tests

Each line is a row of the conformance tables, or a sentence of the contract of the API, with its paragraph and
its test. [api.md](api.md) has the rules of the contract for the endpoints of OAuth ('contract 2'), clients and grants
('contract 3'), trusted issuers ('contract 4') and operators ('contract 6'). 'contract 1' is about
[the program and its settings](configure.md).

| rows | table |
|---|---|
| HP, HT | happy path; hints |
| PR, OW | pairs and grants; ownership |
| CA, MF | client authentication; malformed input |
| TM, CL | transport and method; cluster |
| IN, MD | introspection; metadata |
| GR | revocation of all of a subject |
| JW | JWTs of trusted issuers |
| C | schedules and forgeries that the rules of trusted issuers answer |
| JWT | the attacks of RFC 8725 and the tokens of common products |

Run a test with `+"`go test ./api/conformance -run TEST`"+`, or in the package that is
named with it. A test of `+"`api/conformance`"+` starts three nodes in its process, or three processes of the program that
`+"`REVOKED_CONFORMANCE_BINARY`"+` names, and sends requests through a follower.

Each row of revocation is sent to both of its paths with fresh tokens. Each response is checked against the assertions
GA-1 to GA-8. The number GA-5 is not used.

* GA-1: no-store and no-cache
* GA-2: errors as JSON with a clean description
* GA-3: `+"`{}`"+` on 200
* GA-4: the headers that a status requires
* GA-6: no redirect
* GA-7: nosniff and no server name
* GA-8: no change of state by an error

Then every token is introspected on every node. At the end of each test the logs are searched for raw tokens and
secrets.

To write this page: `+"`go test ./api/conformance -run TestIndex_EveryRow_IsListed -write-index`"+`.

| row | paragraph | requirement | test |
|---|---|---|---|
`, "'", "`"))
	for _, e := range list {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", e.id, e.level, e.title, e.test)
	}
	const file = "../../docs/standards-tests.md"
	if *writeIndex {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s differs from the tables: run this test with -write-index", file)
	}
}
