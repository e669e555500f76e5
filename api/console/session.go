package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"revoked/api/clientauth"
)

// Limits of sessions. A session ends after idleLimit without a request of its user, and after
// longestLimit in any case.
const (
	idleLimit    = 15 * time.Minute
	longestLimit = 8 * time.Hour
	maxSessions  = 1024 // sessions of all clients; a further one ends the session that was unused the longest
	maxOfClient  = 16
)

// cookieName returns the name of a node's cookie. With its prefix, a browser accepts the cookie
// only over HTTPS, from this host and for all of its paths. A browser sends it to every port of the
// host, so nodes on one host need different names.
func cookieName(node string) string {
	sum := sha256.Sum256([]byte(node))
	return "__Host-revoked-" + hex.EncodeToString(sum[:4])
}

// A sessionKey is the SHA-256 of the id in the cookie. Only the browser has the id itself.
type sessionKey [sha256.Size]byte

// A session is a caller that has signed in.
type session struct {
	caller *clientauth.Caller // with the record, and its version, at the time of the sign-in
	form   string             // token that every form of the session's pages contains
	begun  time.Time
	used   time.Time // guarded by sessions.mu, as is notice
	notice string    // text for the next page
}

// owns reports whether a form has the token of the session.
func (s *session) owns(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.form)) == 1
}

// sessions are the sessions of this node. Methods may be called concurrently.
type sessions struct {
	now   func() time.Time
	lasts func(*clientauth.Caller) bool

	mu    sync.Mutex
	byKey map[sessionKey]*session
}

func keyOf(cookie string) sessionKey { return sha256.Sum256([]byte(cookie)) }

// begin starts a session and returns its id. Only the cookie may hold the id.
func (s *sessions) begin(caller *clientauth.Caller) (cookie string) {
	cookie = rand.Text() + rand.Text()
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, other := range s.byKey {
		if !s.alive(other, now) {
			delete(s.byKey, k)
		}
	}
	s.makeRoom(maxOfClient, func(o *session) bool { return o.caller.Client.ID == caller.Client.ID })
	s.makeRoom(maxSessions, func(*session) bool { return true })
	s.byKey[keyOf(cookie)] = &session{caller: caller, form: rand.Text(), begun: now, used: now}
	return cookie
}

// makeRoom counts the sessions for which the function of returns true. If there are at least limit,
// it ends the least recently used one of them.
func (s *sessions) makeRoom(limit int, of func(*session) bool) {
	n, oldest := 0, sessionKey{}
	var found *session
	for k, o := range s.byKey {
		if !of(o) {
			continue
		}
		n++
		if found == nil || o.used.Before(found.used) {
			oldest, found = k, o
		}
	}
	if n >= limit {
		delete(s.byKey, oldest)
	}
}

// alive reports whether a session may be used. The caller holds s.mu.
func (s *sessions) alive(o *session, now time.Time) bool {
	return now.Sub(o.begun) < longestLimit && now.Sub(o.used) < idleLimit && s.lasts(o.caller)
}

// find returns the session of a cookie, or nil. It extends the session unless refresh is set.
func (s *sessions) find(cookie string, refresh bool) *session {
	key, now := keyOf(cookie), s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byKey[key]
	if o == nil {
		return nil
	}
	if !s.alive(o, now) {
		delete(s.byKey, key)
		return nil
	}
	if !refresh {
		o.used = now
	}
	return o
}

// leave stores a text for the next page of session o, which gets the text from take.
func (s *sessions) leave(o *session, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.notice = text
}

func (s *sessions) take(o *session) (text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, o.notice = o.notice, ""
	return text
}

// end ends the session of a cookie. A second call does nothing.
func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, keyOf(cookie))
}

// signedIn finds the session of the request.
func (v *visit) signedIn() {
	req := v.Request.Request()
	for _, cookie := range req.CookiesNamed(v.console.cookie) {
		if s := v.console.sessions.find(cookie.Value, isRefresh(req)); s != nil {
			v.session, v.cookie = s, cookie.Value
			v.Client = s.caller.Client
			return
		}
	}
}

// setCookie gives the browser the id of a session; "" deletes the cookie.
func (v *visit) setCookie(id string) {
	cookie := &http.Cookie{Name: v.console.cookie, Value: id, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteStrictMode}
	if id == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(v.Response(), cookie)
}
