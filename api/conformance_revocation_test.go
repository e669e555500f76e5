package api_test

import "testing"

// TestConformanceOfRevocation holds the tables 6.2 to 6.8 before a cluster whose options have their
// defaults.
func TestConformanceOfRevocation(t *testing.T) {
	s := newStage(t)
	for _, table := range revocationTables() {
		t.Run(table.name, func(t *testing.T) { runRows(t, s, table.rows) })
	}
}

type rowTable struct {
	name string
	rows []row
}

func revocationTables() []rowTable {
	return []rowTable{
		{"happy path", happyRows()}, {"hints", hintRows()}, {"grants", grantRows()}, {"ownership", ownerRows()},
		{"authentication", authenticationRows()}, {"malformed", malformedRows()}, {"transport", transportRows()},
	}
}
