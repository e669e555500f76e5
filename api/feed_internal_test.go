package api

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/stream"
)

// A tickingLog is a log that grows by one entry without events in each period. The log of an idle
// cluster grows in the same way, because the leader commits read barriers.
type tickingLog struct {
	Backend
	start  time.Time
	period time.Duration
	pages  int // calls to Events
}

func (l *tickingLog) applied() uint64 { return uint64(time.Since(l.start) / l.period) }

func (l *tickingLog) Events(context.Context, uint64, int) ([]revoked.Event, uint64, error) {
	l.pages++
	return nil, l.applied(), nil
}

func (l *tickingLog) WaitEvent(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (l *tickingLog) Client(id string) (*revoked.Client, bool) {
	return &revoked.Client{ID: id, Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleResourceServer},
		Secrets: []revoked.SecretHash{{Hash: []byte(id)}}}, true
}

// A timedWriter records when each flushed part of the answer was sent.
type timedWriter struct {
	*httptest.ResponseRecorder
	start time.Time
	at    []time.Duration
}

func (w *timedWriter) Write(p []byte) (int, error) {
	w.at = append(w.at, time.Since(w.start))
	return w.ResponseRecorder.Write(p)
}

func (w *timedWriter) SetWriteDeadline(time.Time) error { return nil }

func sessionOf(clients clientauth.Clients, caller *clientauth.Caller) *clientauth.Session {
	return clientauth.New(clientauth.Config{Clients: clients, Now: time.Now}).Open(caller, readers...)
}

func TestFeed_NoEvents_SendsHeartbeats(t *testing.T) {
	for _, period := range []time.Duration{time.Millisecond, 500 * time.Millisecond, 14 * time.Second, time.Minute} {
		t.Run(period.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &tickingLog{start: time.Now(), period: period}
				a := &API{cfg: Config{Backend: log, Now: time.Now}}
				rs, _ := log.Client("rs1")
				caller := &clientauth.Caller{Client: rs, Method: revoked.AuthBasic, Secret: &rs.Secrets[0]}
				f := &feedReader{a: a, src: eventSource(log), session: sessionOf(log, caller), client: rs,
					last: math.MaxUint64, follow: true, limit: feedPage, sse: true}
				w := &timedWriter{ResponseRecorder: httptest.NewRecorder(), start: time.Now()}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/revocations", nil)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 4*feedHeartbeat+time.Second)
				defer cancel()
				_ = f.run(ctx, stream.New(w, r, feedIdle), false)
				want := []time.Duration{0, feedHeartbeat, 2 * feedHeartbeat, 3 * feedHeartbeat, 4 * feedHeartbeat}
				if !slices.Equal(w.at, want) {
					t.Errorf("got heartbeats at %v, want %v", w.at, want)
				}
				if log.pages > 2*len(want) {
					t.Errorf("got %d pages read for %d heartbeats, want no page for each entry", log.pages, len(want))
				}
				body := bytes.TrimSpace(w.Body.Bytes())
				last := string(body[bytes.LastIndexByte(body, '\n')+1:])
				if log.applied() > 4 && strings.TrimPrefix(last, "id: ") == "0" {
					t.Errorf("got %q at the end, want the id of the last entry read", last)
				}
			})
		})
	}
}

// A largeFeed has n indexes, each with the largest event that a registration can lead to.
type largeFeed struct {
	tickingLog
	n int
}

func (l *largeFeed) Events(_ context.Context, after uint64, limit int) (events []revoked.Event, upTo uint64,
	err error) {
	for upTo = after; upTo < uint64(l.n) && len(events) < limit; upTo++ {
		events = append(events, revoked.Event{Index: upTo + 1, Kind: revoked.EventGrant,
			Digests: make([]revoked.Digest, 256), Audiences: make([][]string, 256)})
	}
	return events, upTo, nil
}

// A client may open a hundred feeds without reading them. Each one keeps a page in memory.
func TestFeed_LargeEvents_KeepPagesSmall(t *testing.T) {
	log := &largeFeed{n: 2000}
	rs, _ := log.Client("rs1")
	caller := &clientauth.Caller{Client: rs, Method: revoked.AuthBasic, Secret: &rs.Secrets[0]}
	f := &feedReader{a: &API{cfg: Config{Backend: log, Now: time.Now}}, src: eventSource(log),
		session: sessionOf(log, caller), client: rs, last: math.MaxUint64, follow: true, limit: feedPage}
	events, most := 0, 0
	for more := true; more; {
		var err error
		if more, err = f.page(t.Context()); err != nil {
			t.Fatal(err)
		}
		events += bytes.Count(f.buf, []byte{'\n'})
		most = max(most, cap(f.buf))
	}
	if events != log.n || f.after != uint64(log.n) {
		t.Errorf("got %d events up to %d, want %d", events, f.after, log.n)
	}
	if most > 1<<20 {
		t.Errorf("got a page of %d bytes, want at most 1 MiB", most)
	}
	if cap(f.buf) != 0 {
		t.Errorf("got a buffer of %d bytes while the reader waits, want none", cap(f.buf))
	}
}
