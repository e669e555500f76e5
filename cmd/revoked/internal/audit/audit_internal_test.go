package audit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"revoked/client"
)

// An entry is one line, even if its texts have line breaks or control characters.
func TestPrintEntry_ControlCharacters_OneCleanLine(t *testing.T) {
	var b strings.Builder
	if err := printEntry(&b, &client.AuditEntry{
		Time: 1790000000, Kind: "cutoff.create", Actor: "admin", Node: "node1", RequestID: "r-1", Outcome: "done",
		Object: map[string]any{"subject": "al\x1b[2Jice", "issued_before": json.Number("1790000001")},
		Reason: "left\nthe company",
	}); err != nil {
		t.Fatal(err)
	}
	want := "2026-09-21T14:13:20Z  admin         cutoff.create     done     issued_before=2026-09-21T14:13:21Z " +
		"subject=al?[2Jice reason: left?the company via node1 request r-1\n"
	if got := b.String(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestMomentOf_Duration_IsBeforeNow(t *testing.T) {
	now := time.Unix(1790000000, 0)
	for text, want := range map[string]string{
		"1h": "2026-09-21T13:13:20Z", "2026-01-31T12:00:00Z": "2026-01-31T12:00:00Z", "1790000000": "1790000000", "": "",
		"-1h": "-1h",
	} {
		if got := momentOf(text, now); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
