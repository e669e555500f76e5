package node

import (
	"testing"
	"time"
)

// A lease is renewed in time also when the setting has just become longer than it is, and at the new
// pace when that has become shorter.
func TestTheShorterOfLeaseAndSettingIsThePaceOfTheAsks(t *testing.T) {
	l := newLoneNode(t)
	setting := l.Settings().LeaseDuration
	if got := l.renewEvery(); setting <= 0 || got != setting/4 {
		t.Errorf("without a lease: got %v, want a quarter of %v", got, setting)
	}
	for _, row := range []struct{ held, want time.Duration }{{setting / 6, setting / 6 / 4}, {setting, setting / 4}, {6 * setting, setting / 4}} {
		a := l.leases.ask()
		l.leases.take(leaseGrant{term: loneTerm, nonce: a.nonce, boot: a.boot, length: row.held})
		if got := l.renewEvery(); got != row.want {
			t.Errorf("a lease of %v while the setting says %v: got an ask every %v, want every %v", row.held, setting, got, row.want)
		}
	}
}
