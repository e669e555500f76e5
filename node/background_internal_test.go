package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// A pile is a backlog of n commands.
type pile struct {
	n      int
	oldest revoked.Time
}

func (p *pile) Backlog(_ revoked.Time, size func(int) int) fsm.Background {
	if p.n == 0 {
		return nil
	}
	p.n--
	return &command.Expire{Limit: uint32(size(4000))}
}

func (p *pile) OldestDue() revoked.Time { return p.oldest }

func TestBackground_Run_LeavesTimeToCallers(t *testing.T) {
	const took = 20 * time.Millisecond
	now := revoked.Time(1_790_000_000 * 1e6)
	for name, tt := range map[string]struct {
		commands int
		others   uint64 // entries of callers between two commands
		oldest   revoked.Time
		err      error
		ran      int
		pause    time.Duration
	}{
		"nothing is due":                     {pause: idlePause},
		"an idle cluster":                    {commands: 5, ran: 5, pause: idlePause},
		"many rows, and an idle cluster":     {commands: 100, ran: inARow, pause: idlePause},
		"callers also wrote":                 {commands: 5, others: 1, oldest: now, ran: 1, pause: callersShare * took},
		"the oldest row is unknown":          {commands: 5, others: 1, ran: 1, pause: callersShare * took},
		"rows are long overdue":              {commands: 5, others: 3, oldest: now.Add(-time.Hour), ran: 5, pause: idlePause},
		"a command that cannot be committed": {commands: 5, err: errors.New("no leader"), ran: 1, pause: idlePause},
	} {
		t.Run(name, func(t *testing.T) {
			index, ran := uint64(100), 0
			var waited []uint64
			b := background{
				commit: func(command.Command) (fsm.Outcome, error) {
					ran++
					index += 1 + tt.others
					return fsm.Outcome{Index: index, Took: took}, tt.err
				},
				keepUp: func(i uint64) { waited = append(waited, i) },
				last:   100,
			}
			pause := b.run(t.Context(), &pile{tt.commands, tt.oldest}, func() revoked.Time { return now })
			if ran != tt.ran || pause != tt.pause {
				t.Errorf("got %d commands and a pause of %v, want %d and %v", ran, pause, tt.ran, tt.pause)
			}
			for i, at := range waited {
				if want := 100 + uint64(i)*(1+tt.others); at != want {
					t.Errorf("command %d: waited for index %d, want the command before it, %d", i, at, want)
				}
			}
		})
	}
}

func TestBackground_TermEnds_RunReturns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := background{commit: func(command.Command) (fsm.Outcome, error) {
		t.Error("got a command, want none")
		return fsm.Outcome{}, nil
	}}
	b.run(ctx, &pile{n: 1}, func() revoked.Time { return 1 })
}
