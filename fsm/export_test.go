package fsm

// SetDenialQuota replaces the quota of denials of one client. Call it before Apply.
func (f *FSM) SetDenialQuota(n uint64) { f.rules.DenialQuota = n }
