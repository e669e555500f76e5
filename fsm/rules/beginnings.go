package rules

import (
	"cmp"
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
)

// bootstrap gives a new cluster its id, settings and first clients. The leader has checked m as a
// whole (command.AdmitBootstrap). A log of an older version may contain a Bootstrap with invalid
// records: every version skips the same records, and this version logs them. See DESIGN.md.
//
// bootstrap changes nothing in a state that has an id, because two successive leaders may both
// propose a Bootstrap.
func (a *Applier) bootstrap(m *command.Bootstrap) {
	if a.currentCluster() != "" || m.ClusterId == "" {
		return
	}
	a.putClusterID(m.ClusterId)
	s := m.Settings.Settings()
	if err := revoked.ValidateSettings(&s); m.Settings == nil || err != nil {
		if m.Settings != nil {
			a.Log.Error("bootstrap settings replaced with the original defaults", "error", err)
		}
		s = memory.OriginalSettings()
	}
	s.Version, s.LeaseCeiling = a.Index, 0
	a.putSettings(&rows.Settings{Settings: s})
	for _, rec := range m.Clients {
		err := command.CheckClient(rec)
		if err == nil && a.client(rec.Id) != nil {
			err = fmt.Errorf("%w: duplicate client id", revoked.ErrInvalid)
		}
		if err != nil {
			a.Log.Error("bootstrap client skipped", "client", rec.GetId(), "error", err)
			continue
		}
		c := rec.Client()
		c.Version = a.Index
		if c.CreatedAt == 0 {
			c.CreatedAt = a.Stamp
		}
		a.putClient(c)
	}
	if len(m.Clients) > 0 && len(a.clients) == 0 {
		a.Log.Error("cluster bootstrapped without any client")
	}
	if m.Audited {
		detail := fmt.Sprintf("cluster created with %d clients", len(a.clients))
		a.audit(&revoked.AuditEntry{Kind: revoked.AuditSettingsUpdate, Actor: revoked.ActorBootstrap, Detail: detail})
	}
}

// openTerm revokes every grant and drops the admissions if the term is the first one after a
// recovery.
func (a *Applier) openTerm(m *command.Epoch) {
	if m.EndsBefore <= 0 {
		return
	}
	reason := m.Reason
	if command.CheckReason(reason) != nil {
		reason = ""
	}
	a.forgetAdmissions()
	a.endEverything(revoked.Time(m.EndsBefore), reason)
}

// endEverything creates a cut-off of all grants. Revocations may have been lost, and their tokens
// must not become active again. A Whole cut-off revokes them whatever issued_at they claim.
func (a *Applier) endEverything(before revoked.Time, reason string) {
	before = min(before, command.MaxTime)
	a.addCutoff(&rows.Cutoff{Cutoff: revoked.Cutoff{IssuedBefore: before, Reason: reason}, Whole: true})
}

// Seed turns the state of a backup into that of a new cluster. It changes the state as one entry
// after the backup would, although no log contains such an entry. Seed ends everything that was
// issued at or before the time given by the argument before. 0 keeps the tokens of the backup
// active, even those that were revoked after the backup.
//
// actor is [revoked.ActorRestore] or [revoked.ActorRecover], for the audit log.
//
// It returns ErrUnprocessable if before is earlier than the stamp of the backup by more than
// max_clock_skew. The tokens issued between these two times would stay active.
//
// The argument now is the time of the seed. The history has a gap from the backup to that time. 0
// means a time just after the backup.
func (a *Applier) Seed(clusterID, actor string, before, now revoked.Time, reason string) error {
	a.begin(a.Index+1, a.Term)
	a.LogHash = rows.NextLogHash(a.LogHash, a.Index, a.Term, []byte("seed "+clusterID))
	a.putClusterID(clusterID)
	a.forgetAdmissions()
	backup := a.Stamp
	if before != 0 {
		if a.Stamp > before.Add(a.currentSettings().MaxClockSkew) {
			return fmt.Errorf("%w: seed: clock is behind the backup (got %s, want at least %s)",
				revoked.ErrUnprocessable, before.Std().Format(time.RFC3339), a.Stamp.Std().Format(time.RFC3339))
		}
		a.advance(min(before, command.MaxTime))
		a.endEverything(a.Stamp, cmp.Or(reason, "restored from a backup"))
	}
	a.recordSeed(actor, before == 0, reason)
	if a.keepsHistory() {
		h := *a.currentHistory()
		h.AddGap(revoked.Gap{From: backup, To: max(a.Stamp, min(now, command.MaxTime))})
		a.putHistory(h)
	}
	a.recordHashes()
	return a.err
}

// recordSeed writes the audit entry of a seed. It also raises the version row, because the log may
// hold no command of that version, and an older program must not read the entry.
func (a *Applier) recordSeed(actor string, keepsTokens bool, reason string) {
	if a.mem.Version.Commands < command.Audit {
		a.putVersion(rows.Version{Commands: command.Audit})
	}
	kind, detail := revoked.AuditRestore, "every token issued before has ended"
	if actor == revoked.ActorRecover {
		kind = revoked.AuditRecover
	}
	if keepsTokens {
		detail = "tokens stay active, also those revoked since the backup"
	}
	a.audit(&revoked.AuditEntry{Kind: kind, Actor: actor, Reason: command.CleanReason(reason), Detail: detail})
}
