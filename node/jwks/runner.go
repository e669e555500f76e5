package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"revoked"
)

// maxFetches is the number of fetches that may run concurrently.
const maxFetches = 4

// listInterval is the time between two reads of the list of issuers.
const listInterval = time.Second

// A RunnerConfig configures a [Runner]. Its functions may be called concurrently.
type RunnerConfig struct {
	// Issuers returns the issuers of the state. Those with a JWKSURI are fetched.
	Issuers func() []*revoked.Issuer
	Fetch   func(ctx context.Context, uri string) (Set, error)
	// Store commits fetched keys of an issuer, which replace the current keys. It returns the log
	// index once this node has applied it. Equal keys change nothing. The actor by is the client that
	// requested the fetch, or zero.
	Store func(
		ctx context.Context, by revoked.Actor, i *revoked.Issuer, keys []revoked.IssuerKey,
	) (index uint64, err error)
	Log   *slog.Logger
	Count func(ok bool) // counts a fetch
}

// A Runner fetches the keys of all issuers while this node leads. Its methods may be called
// concurrently.
type Runner struct {
	cfg     RunnerConfig
	slots   chan struct{} // contains a value for each fetch in progress
	changed chan struct{}

	mu      sync.Mutex
	workers map[string]*worker // by name; nil unless Run runs
}

// NewRunner returns a runner, which does nothing until Run is called. Run may be called again in a
// later term, after it has returned.
func NewRunner(cfg RunnerConfig) *Runner {
	return &Runner{cfg: cfg, slots: make(chan struct{}, maxFetches), changed: make(chan struct{}, 1)}
}

// A State describes the fetches of an issuer.
type State struct {
	At     time.Time // end of the last fetch; zero: none yet
	OK     bool      // whether the last fetch succeeded
	Error  string    // why the last fetch failed
	NextAt time.Time // time at which the next fetch is due

	Failures int       // number of failed fetches since the last success
	Since    time.Time // end of the last successful fetch; before that, the start of the worker
}

// An Outcome is the result of a requested fetch.
type Outcome struct {
	Index   uint64 // log index at which the state has the fetched keys
	Changed bool
	Shared  bool // whether a scheduled fetch, or one for another caller, served this call
}

// A worker fetches the keys of one issuer. The runner's mutex guards its fields.
type worker struct {
	name, uri string
	schedule  Schedule
	state     State
	running   *attempt
	requested *attempt // requested attempt that has not begun
	wake      chan struct{}
	stop      context.CancelFunc
	done      chan struct{}
}

// An attempt is one fetch, for all callers that wait for it.
type attempt struct {
	by      revoked.Actor // first caller that requested the attempt, for the audit log; zero: none
	done    chan struct{}
	outcome Outcome
	err     error
}

// Run fetches until ctx ends. It returns after all of its workers have stopped. It must not run
// twice concurrently.
func (r *Runner) Run(ctx context.Context) {
	r.mu.Lock()
	r.workers = map[string]*worker{}
	r.mu.Unlock()
	tick := time.NewTicker(listInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		r.follow(ctx)
		select {
		case <-tick.C:
		case <-r.changed:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	all := r.workers
	r.workers = nil
	r.mu.Unlock()
	for _, w := range all {
		<-w.done
	}
}

// Changed makes the runner read the list of issuers immediately instead of at the next interval.
func (r *Runner) Changed() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// follow starts and stops workers, so that there is one for each issuer with a URI.
func (r *Runner) follow(ctx context.Context) {
	uris := map[string]string{}
	for _, i := range r.cfg.Issuers() {
		if i.JWKSURI != "" && i.DeletedAt == 0 {
			uris[i.Name] = i.JWKSURI
		}
	}
	// A worker stops before its successor starts, so fetches of one issuer never overlap.
	for _, w := range r.stopOthers(uris) {
		<-w.done
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, uri := range uris {
		if r.workers[name] != nil {
			continue
		}
		life, stop := context.WithCancel(ctx)
		w := &worker{name: name, uri: uri, wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
		w.state.Since = time.Now()
		r.workers[name] = w
		go r.work(life, w)
	}
}

// stopOthers stops the workers of issuers that were deleted or have another URI, and returns them.
func (r *Runner) stopOthers(uris map[string]string) (stopped []*worker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, w := range r.workers {
		if uris[name] != w.uri {
			w.stop()
			delete(r.workers, name)
			stopped = append(stopped, w)
		}
	}
	return stopped
}

// Refresh fetches the keys of an issuer now, on behalf of the actor by, and waits for the result.
// Calls during a fetch share that fetch. It returns ErrQuota if a fetch began less than MinInterval
// ago. It returns ErrNotCurrent for a failed fetch and for an issuer whose keys are not fetched,
// and ErrNoLeader if this node does not lead.
func (r *Runner) Refresh(ctx context.Context, by revoked.Actor, name string) (Outcome, error) {
	a, shared, err := r.ask(by, name)
	if err != nil {
		return Outcome{}, err
	}
	select {
	case <-a.done:
		out := a.outcome
		out.Shared = shared
		return out, a.err
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("%w: fetch of keys: not finished", revoked.ErrNotCurrent)
	}
}

// ask returns the attempt that a caller of Refresh waits for. If a fetch is in progress, ask
// returns that fetch, because MinInterval does not allow another fetch so soon.
func (r *Runner) ask(by revoked.Actor, name string) (a *attempt, shared bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.workers == nil {
		return nil, false, errNotRunning
	}
	w := r.workers[name]
	switch {
	case w == nil:
		r.Changed()
		return nil, false, fmt.Errorf("%w: keys of issuer %q: not fetched yet", revoked.ErrNotCurrent, name)
	case w.running != nil:
		return w.running, true, nil
	case w.requested != nil:
		return w.requested, true, nil
	}
	if wait := w.schedule.Wait(time.Now()); wait > 0 {
		return nil, false, fmt.Errorf("%w: the last fetch of the keys of issuer %q began less than %s ago; retry in %s",
			revoked.ErrQuota, name, MinInterval, max(wait.Truncate(time.Second), time.Second))
	}
	w.requested = &attempt{by: by, done: make(chan struct{})}
	w.wake <- struct{}{}
	return w.requested, false, nil
}

var errNotRunning = fmt.Errorf("%w: this node does not fetch keys", revoked.ErrNoLeader)

// States returns the fetch state of each issuer by name. It returns false if this node does not
// fetch keys.
func (r *Runner) States() (map[string]State, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := map[string]State{}
	for name, w := range r.workers {
		states[name] = w.state
	}
	return states, r.workers != nil
}

// work fetches the keys of one issuer until ctx ends.
func (r *Runner) work(ctx context.Context, w *worker) {
	defer close(w.done)
	for r.pause(ctx, w) {
		a := r.begin(w)
		set, err := r.cfg.Fetch(ctx, w.uri)
		<-r.slots
		if err != nil {
			err = fmt.Errorf("%w: %w", revoked.ErrNotCurrent, err)
		} else {
			a.outcome, err = r.store(ctx, a.by, w.name, set)
		}
		if a.err = err; ctx.Err() != nil {
			a.err = errNotRunning
		}
		r.end(ctx, w, a, set)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.requested != nil {
		w.requested.err = errNotRunning
		close(w.requested.done)
		w.requested = nil
	}
}

// pause waits until a fetch is due or requested, and then for a slot. It returns false if ctx ends.
// The slots bound the connections and the memory of all fetches together.
func (r *Runner) pause(ctx context.Context, w *worker) bool {
	r.mu.Lock()
	due := time.NewTimer(time.Until(w.schedule.Next()))
	r.mu.Unlock()
	defer due.Stop()
	select {
	case <-due.C:
	case <-w.wake:
	case <-ctx.Done():
		return false
	}
	select {
	case r.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin starts and returns the requested attempt, or a new one if none was requested.
func (r *Runner) begin(w *worker) *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := w.requested
	if a == nil {
		a = &attempt{done: make(chan struct{})}
	} else {
		select {
		case <-w.wake: // the timer fired just when a fetch was requested
		default:
		}
	}
	w.running, w.requested = a, nil
	w.schedule.Begin(time.Now())
	return a
}

// store commits a fetched set for the newest record of the issuer. The operation has the keys
// version of that record, so Apply refuses keys that were fetched from an old URI.
func (r *Runner) store(ctx context.Context, by revoked.Actor, name string, set Set) (Outcome, error) {
	i := r.issuer(name)
	if i == nil {
		return Outcome{}, fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, name)
	}
	index, err := r.cfg.Store(ctx, by, i, set.Keys)
	if err != nil {
		return Outcome{}, fmt.Errorf("store the keys: %w", err)
	}
	next := r.issuer(name)
	return Outcome{Index: index, Changed: next != nil && next.KeysVersion != i.KeysVersion}, nil
}

// issuer returns the newest record of an issuer, which may have changed during the fetch, or nil.
func (r *Runner) issuer(name string) *revoked.Issuer {
	for _, i := range r.cfg.Issuers() {
		if i.Name == name {
			return i
		}
	}
	return nil
}

// end records the result of a fetch and wakes the callers that wait for it. It logs only the first
// of several failures, and the first success after them. Otherwise an issuer that is down for days
// would fill the log.
func (r *Runner) end(ctx context.Context, w *worker, a *attempt, set Set) {
	missing := false
	if i := r.issuer(w.name); i != nil {
		for _, k := range i.Keys {
			missing = missing || k.State == revoked.KeyActive && k.MissingSince != 0
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer close(a.done)
	w.running = nil
	if ctx.Err() != nil {
		return
	}
	failing, now := w.state.Error != "", time.Now()
	w.state = State{At: now, OK: a.err == nil, Failures: w.state.Failures + 1, Since: w.state.Since}
	if a.err == nil {
		w.state.Failures, w.state.Since = 0, now
		w.schedule.Succeeded(now, set.MaxAge, missing, rand.Float64())
	} else {
		w.state.Error = revoked.Detail(a.err)
		w.schedule.Failed(now, rand.Float64())
	}
	w.state.NextAt = w.schedule.Next()
	r.cfg.Count(a.err == nil)
	switch {
	case a.err != nil && !failing && !errors.Is(a.err, revoked.ErrConflict):
		r.cfg.Log.Warn("cannot fetch keys of issuer", "issuer", w.name, "error", w.state.Error)
	case a.err == nil && failing:
		r.cfg.Log.Info("fetched keys of issuer after failures", "issuer", w.name)
	}
}
