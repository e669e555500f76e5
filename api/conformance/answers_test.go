package conformance_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// checkOAuth checks the assertions GA-1 to GA-7 on a response of an OAuth endpoint.
func checkOAuth(t *testing.T, r reply) {
	t.Helper()
	checkHeaders(t, r)
	if r.Status >= 400 {
		var body struct {
			Error       *string `json:"error"`
			Description string  `json:"error_description"`
		}
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil || body.Error == nil || *body.Error == "" {
			t.Errorf("GA-2: got body %s (%v)", r.Body, err)
		}
		for _, c := range []byte(body.Description) {
			if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
				t.Errorf("GA-2: error_description contains %q", c)
			}
		}
		if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
			t.Errorf("the error repeats input: %s", r.Body)
		}
	}
}

// checkHeaders is like checkOAuth, but does not check the body. It is for HEAD.
func checkHeaders(t *testing.T, r reply) {
	t.Helper()
	h := r.Header
	if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" {
		t.Errorf("GA-1: got Cache-Control %q, Pragma %q", h.Get("Cache-Control"), h.Get("Pragma"))
	}
	if h.Get("Content-Type") != "application/json" {
		t.Errorf("GA-2: got Content-Type %q", h.Get("Content-Type"))
	}
	switch r.Status {
	case 401:
		if got := h.Get("WWW-Authenticate"); got != `Basic realm="revoked"` {
			t.Errorf("GA-4: got WWW-Authenticate %q", got)
		}
	case 405:
		if h.Get("Allow") == "" {
			t.Error("GA-4: 405 without Allow")
		}
	case 429, 503:
		if n, err := strconv.Atoi(h.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("GA-4: got Retry-After %q", h.Get("Retry-After"))
		}
	}
	if r.Status >= 300 && r.Status < 400 {
		t.Errorf("GA-6: got a redirect, %d", r.Status)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Server") != "" {
		t.Errorf("GA-7: got nosniff %q, Server %q", h.Get("X-Content-Type-Options"), h.Get("Server"))
	}
}

// checkEqual fails the test unless two responses are equal, except for headers of the connection.
func checkEqual(t *testing.T, what string, a, b reply) {
	t.Helper()
	strip := func(h http.Header) http.Header {
		h = h.Clone()
		for _, k := range []string{"Date", "Connection"} {
			h.Del(k)
		}
		return h
	}
	if a.Status != b.Status || a.Body != b.Body || !reflect.DeepEqual(strip(a.Header), strip(b.Header)) {
		t.Errorf("%s: got %d %v %s and %d %v %s, want equal answers", what, a.Status, a.Header, a.Body, b.Status, b.Header,
			b.Body)
	}
}

// withCORS checks TM-12: the headers of a response to a configured origin.
func withCORS(t *testing.T, _ *tokenSet, _ *member, r reply) {
	t.Helper()
	h := r.Header
	if h.Get("Access-Control-Allow-Origin") != appOrigin || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("got Allow-Origin %q, Allow-Credentials %q", h.Get("Access-Control-Allow-Origin"),
			h.Get("Access-Control-Allow-Credentials"))
	}
	exposed := h.Get("Access-Control-Expose-Headers")
	if !strings.Contains(exposed, "Retry-After") || !strings.Contains(exposed, "WWW-Authenticate") ||
		!strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
		t.Errorf("got Expose-Headers %q, Vary %q", exposed, h.Values("Vary"))
	}
}
