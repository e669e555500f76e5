package request

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"revoked"
)

// RFC 6749 section 5.2: error_description has only %x20-21 / %x23-5B / %x5D-7E.
func TestTable_Rows_FitRFC6749(t *testing.T) {
	for _, m := range append(newTable(), unavailable) {
		if strings.ContainsFunc(m.title, func(c rune) bool { return c < 0x20 || c > 0x7e || c == '"' || c == '\\' }) {
			t.Errorf("%v: got the title %q, want characters of RFC 6749 section 5.2", m.sentinel, m.title)
		}
		if m.status < http.StatusBadRequest || m.code == "" || m.outcome == "" {
			t.Errorf("%v: got %+v, want a status of an error, a code and an outcome", m.sentinel, m)
		}
	}
}

// No OAuth endpoint defines 404, 409 or 422, so an OAuth client must not get them. Such an error
// becomes a 503.
func TestFailureOf_StatusUndefinedInOAuth_Is503(t *testing.T) {
	for _, err := range []error{revoked.ErrNotFound, revoked.ErrConflict, revoked.ErrUnprocessable} {
		wrapped := fmt.Errorf("%w: facts", err)
		if f := FailureOf("/oauth2/revoke", wrapped); f.Status != http.StatusServiceUnavailable || f.Detail != "" {
			t.Errorf("%v at OAuth: got %d %q, want 503 without the text", err, f.Status, f.Detail)
		}
		if f := FailureOf("/v1/clients", wrapped); f.Status < 400 || f.Status >= 500 || f.Detail != wrapped.Error() {
			t.Errorf("%v at /v1: got %d %q, want a 4xx with the text", err, f.Status, f.Detail)
		}
	}
}

// The cause of a failed fetch of keys names the address of the keys, so only administrators get it.
func TestFailureOf_KeysNotFetched_ShowsCauseToAdmins(t *testing.T) {
	err := fmt.Errorf("%w: status 500", revoked.ErrKeysNotFetched)
	for path, shown := range map[string]bool{
		"/v1/issuers/as/refresh": true, "/v1/explain": true, "/v1/check": false, "/oauth2/introspect": false,
	} {
		f := FailureOf(path, err)
		if f.Status != http.StatusServiceUnavailable || !strings.Contains(f.Title, "keys of the issuer") ||
			strings.Contains(f.Detail, "status 500") != shown {
			t.Errorf("%s: got %d %q %q, want 503 about the keys, cause shown: %v", path, f.Status, f.Title, f.Detail, shown)
		}
	}
}

func TestFailureOf_UnknownError_IsOpaque(t *testing.T) {
	secret := errors.New("disk at /secret is full")
	for _, path := range []string{"/oauth2/introspect", "/v1/grants"} {
		f := FailureOf(path, secret)
		if f.Status != http.StatusServiceUnavailable || strings.Contains(f.Title+f.Detail, "secret") {
			t.Errorf("%s: got %+v, want an opaque 503", path, f)
		}
		if !errors.Is(f.Cause, secret) {
			t.Errorf("%s: got the cause %v, want it for the log", path, f.Cause)
		}
	}
	if line := string(AppendLineError(nil, secret, 7)); strings.Contains(line, "secret") ||
		!strings.Contains(line, `"line":7`) {
		t.Errorf("got %s, want the line without the text", line)
	}
}
