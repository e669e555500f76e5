package conformance_test

import (
	"net/http"
	"strings"
	"testing"
)

// alike returns a check that sends another request and requires an equal response.
func alike(what string, other call) func(t *testing.T, w *tokenSet, m *member, r reply) {
	return func(t *testing.T, w *tokenSet, m *member, r reply) {
		next := w.s.send(t, w.s.HTTP, m, pathRevoke, other, w.tokens)
		checkOAuth(t, next)
		checkEqual(t, what, r, next)
	}
}

func authenticationRows() []row {
	at1, wrong := "token={AT1}", basicOf("c1:wrong")
	own := basicOf("c1:" + secretFor("c1"))
	refused := func(id, level, title string, a call) row {
		return row{id: id, level: level, title: title, call: a, status: 401, code: "invalid_client"}
	}
	malformed := func(id, level, title string, a call) row {
		return row{id: id, level: level, title: title, call: a, status: 400, code: "invalid_request"}
	}
	accepted := func(id, level, title string, a call, dead string) row {
		return row{id: id, level: level, title: title, call: a, status: 200, dead: dead}
	}
	unknown := refused("CA-02", "RFC 6749 5.2", "an unknown client is answered like a wrong secret",
		call{auth: wrong, body: at1})
	unknown.after = alike("CA-02", call{auth: basicOf("nobody:wrong"), body: at1})
	disabled := refused("CA-02", "contract 2 \"answer alike\"", "a disabled client is answered like a wrong secret",
		call{auth: wrong, body: at1})
	disabled.after = alike("CA-02", call{as: "cd", body: at1})
	public := refused("CA-02", "contract 2 \"answer alike\"", "a public client is answered like no credentials",
		call{body: at1})
	public.after = alike("OW-03", call{body: "client_id=pub1&" + at1})
	return []row{
		refused("CA-01", "RFC 6749 5.2", "a wrong secret", call{auth: wrong, body: at1}),
		unknown, disabled, public,
		refused("CA-03", "RFC 6749 5.2", "no credentials", call{body: at1}),
		refused("CA-03", "RFC 6749 5.2", "no credentials but a client_id", call{body: "client_id=c1&" + at1}),
		refused("CA-03", "RFC 6749 5.2", "an unknown client_id without credentials", call{body: "client_id=nobody&" + at1}),
		refused("CA-05", "RFC 7009 2.1", "a wrong secret and an unknown token", call{auth: wrong, body: "token=raw~unknown"}),
		refused("CA-06", "RFC 7009 2.1", "a wrong secret and no token", call{auth: wrong, body: "foo=1"}),
		refused("CA-06", "contract 2", "no credentials and no token", call{body: "foo=1"}),
		refused("CA-06", "contract 2", "no credentials and an empty body", call{}),
		accepted("CA-07", "RFC 6749 2.3.1", "form-encoded id and secret",
			call{auth: "Basic Y2wlM0FpZW50OnMlMjVjJTJCcit0", body: "token=raw~unknown"}, ""),
		refused("CA-08", "RFC 6749 2.3.1", "a raw id with a colon",
			call{auth: "Basic Y2w6aWVudDpzJWMrciB0", body: "token=raw~unknown"}),
		accepted("CA-09", "contract 2 \"percent-encoded\"", "percent-encoded id and secret",
			call{auth: basicOf("cl%3Aient:s%25c%2Br%20t"), body: "token=raw~unknown"}, ""),
		accepted("CA-09", "contract 2 \"raw spellings\"", "a raw secret behind an id whose colon is escaped",
			call{auth: basicOf("cl%3Aient:s%c+r t"), body: "token=raw~unknown"}, ""),
		accepted("CA-09", "contract 2 \"percent-encoded\"", "every byte of the id percent-encoded",
			call{auth: basicOf("%63%31:" + secretFor("c1")), body: at1}, pair),
		accepted("CA-10", "RFC 6749 2.3.1", "id and secret in the body",
			call{body: "client_id=c1&client_secret={secret:c1}&" + at1}, pair),
		accepted("CA-10", "RFC 6749 2.3.1", "id and secret of C3 in the body",
			call{body: "client_id=cl%3Aient&client_secret={secret:cl:ient}&token=raw~unknown"}, ""),
		refused("CA-10", "RFC 6749 2.3.1", "a wrong secret in the body",
			call{body: "client_id=c1&client_secret=wrong&" + at1}),
		malformed("CA-11", "RFC 6749 2.3", "Basic and another client_id in the body",
			call{auth: own, body: "client_id=c2&" + at1}),
		accepted("CA-11", "contract 2 \"is one way\"", "Basic and the same client_id in the body",
			call{auth: own, body: "client_id=c1&" + at1}, pair),
		malformed("CA-14", "RFC 6749 2.3", "Basic and a secret in the body",
			call{auth: own, body: "client_id=c1&client_secret={secret:c1}&" + at1}),
		malformed("CA-14", "RFC 6749 2.3", "Basic and a secret without an id in the body",
			call{auth: own, body: "client_secret={secret:c1}&" + at1}),
		accepted("CA-14", "RFC 6749 3.1", "Basic and empty credentials in the body",
			call{auth: own, body: "client_id=&client_secret=&" + at1}, pair),
		accepted("CA-14", "RFC 6750 2.1", "Bearer, and id and secret in the body",
			call{auth: "Bearer {AT1}", body: "client_id=c1&client_secret={secret:c1}&" + at1}, pair),
		malformed("CA-12", "RFC 6749 2.3.1", "a secret in the query",
			call{path: "?client_id=c1&client_secret={secret:c1}", body: at1}),
		malformed("CA-12", "RFC 6749 2.3.1", "a secret in the query, and Basic",
			call{path: "?client_secret={secret:c1}", auth: own, body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic that is not base64", call{auth: "Basic !!!", body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic without a colon", call{auth: "Basic YWJj", body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic without credentials", call{auth: "Basic ", body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic with an empty id and an empty secret", call{auth: basicOf(":"), body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic with an empty secret", call{auth: basicOf("c1:"), body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic with bytes that are not text", call{auth: basicOf("\xff\x00:\xfe"), body: at1}),
		refused("CA-13", "RFC 7617 2", "Basic with a NUL in the id",
			call{auth: basicOf("c1\x00:" + secretFor("c1")), body: at1}),
		malformed("CA-15", "RFC 9110 11.6.2", "two Authorization headers",
			call{header: http.Header{"Authorization": {own, own}}, body: at1}),
		refused("CA-16", "RFC 6749 5.2", "another scheme", call{auth: `Digest username="c1"`, body: at1}),
		refused("CA-16", "RFC 6749 5.2", "a bearer token of the cluster", call{auth: "Bearer {AT1}", body: at1}),
		refused("CA-17", "RFC 6749 3.1", "an empty secret in the body", call{body: "client_id=c1&client_secret=&" + at1}),
		refused("CA-17", "RFC 6749 3.1", "an empty client_id in the body",
			call{body: "client_id=&client_secret={secret:c1}&" + at1}),
		malformed("contract", "2 \"any repeated known parameter is 400\"", "client_id twice",
			call{body: "client_id=c1&client_id=c1&client_secret={secret:c1}&" + at1}),
		malformed("contract", "2 \"any repeated known parameter is 400\"", "client_secret twice",
			call{body: "client_id=c1&client_secret={secret:c1}&client_secret={secret:c1}&" + at1}),
		refused("CA-19", "contract 2", "a client limited to Basic sends its secret in the body",
			call{body: "client_id=basic-only&client_secret={secret:basic-only}&" + at1}),
		accepted("CA-19", "contract 2", "a client limited to Basic uses Basic",
			call{as: "basic-only", body: "token=raw~unknown"}, ""),
		refused("CA-19", "contract 2", "a client limited to client_secret_post uses Basic", call{as: "post-only", body: at1}),
		accepted("CA-19", "contract 2", "a client limited to client_secret_post uses the body",
			call{body: "client_id=post-only&client_secret={secret:post-only}&token=raw~unknown"}, ""),
		refused("contract", "2 \"Authentication comes before any look at the token\"",
			"a wrong secret and a token that was revoked",
			call{auth: wrong, body: "token={RTg0}"}),
	}
}

func malformedRows() []row {
	bad := func(id, level, title string, a call) row {
		if a.as == "" && a.auth == "" {
			a.as = "c1"
		}
		return row{id: id, level: level, title: title, call: a, status: 400, code: "invalid_request"}
	}
	good := func(id, level, title, body, dead string) row {
		return row{id: id, level: level, title: title, call: call{as: "c1", body: body}, status: 200, dead: dead}
	}
	big := strings.Repeat("x", 16<<10)
	gzip := func(enc string) row {
		return row{id: "MF-20", level: "RFC 9110 15.5.16", title: "a body in " + enc,
			call: call{as: "c1", body: "token={AT1}", header: http.Header{"Content-Encoding": {enc}}}, status: 415,
			code: "invalid_request"}
	}
	multipart := "--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{AT1}\r\n--b--\r\n"
	return []row{
		bad("MF-01", "RFC 7009 2.1", "no token", call{body: "foo=1"}),
		bad("MF-02", "RFC 6749 3.1", "an empty token", call{body: "token="}),
		bad("MF-03", "RFC 6749 3.1", "two tokens", call{body: "token={AT1}&token={AT3}"}),
		bad("MF-04", "RFC 6749 3.1", "the same token twice", call{body: "token={AT1}&token={AT1}"}),
		bad("MF-04", "RFC 6749 3.1", "a token and an empty one", call{body: "token={AT1}&token="}),
		bad("MF-05", "RFC 6749 3.1", "a token in the body and in the query", call{path: "?token={AT1}", body: "token={AT1}"}),
		bad("MF-06", "RFC 7009 2.1", "a token in the query only", call{path: "?token={AT1}", body: "foo=1"}),
		bad("MF-06", "RFC 7009 2.1", "a token in the query and no body", call{path: "?token={AT1}"}),
		bad("MF-07", "RFC 7009 2.1", "JSON", call{body: `{"token":"{AT1}"}`, contentType: "application/json"}),
		bad("MF-07", "RFC 7009 2.1", "a form labeled as JSON", call{body: "token={AT1}", contentType: "application/json"}),
		bad("MF-08", "RFC 7009 2.1", "multipart/form-data",
			call{body: multipart, contentType: "multipart/form-data; boundary=b"}),
		bad("MF-09", "RFC 7009 2.1", "text/plain", call{body: "token={AT1}", contentType: "text/plain"}),
		bad("MF-09", "RFC 7009 2.1", "no content type", call{body: "token={AT1}", contentType: "-"}),
		bad("MF-09", "RFC 7009 2.1", "two content types",
			call{body: "token={AT1}", contentType: "-", header: http.Header{"Content-Type": {formType, formType}}}),
		bad("MF-10", "RFC 6749 B", "an invalid escape", call{body: "token=%zz"}),
		bad("MF-10", "RFC 6749 B", "an invalid escape in an unknown parameter", call{body: "token={AT1}&x=%g1"}),
		bad("MF-10", "RFC 6749 B", "an invalid escape in the query", call{path: "?x=%zz", body: "token={AT1}"}),
		bad("MF-11", "RFC 6749 B", "a semicolon", call{body: "token={AT1};b=c"}),
		bad("MF-12", "RFC 7009 2.1", "an empty body", call{}),
		{id: "MF-13", level: "RFC 9110 15.5.14", title: "a body of more than 16 KiB",
			call: call{as: "c1", body: "token={AT1}&x=" + big}, status: 413, code: "invalid_request"},
		{id: "MF-13", level: "contract 2 \"size\" before authentication",
			title: "a body of more than 16 KiB with a wrong secret",
			call:  call{auth: basicOf("c1:wrong"), body: "token={AT1}&x=" + big}, status: 413, code: "invalid_request"},
		good("MF-13", "contract 2", "a body of exactly 16 KiB",
			"token={AT1}&x="+strings.Repeat("x", 16<<10-len("token=&x=")-len("raw~AT1.1~1700000000")-3), pair),
		good("MF-14", "RFC 7009 2.2", "a token of 8 KiB", "token=raw~"+strings.Repeat("k", 8<<10), ""),
		good("MF-15", "RFC 7009 2.2", "a token of spaces, NUL, line breaks and other bytes",
			"token=raw~%00+%FF%0A%0D%20%E2%82%AC", ""),
		good("MF-16", "RFC 7009 2.2", "a token that is part of another", "token=raw~AT1", ""),
		bad("MF-17", "RFC 6749 3.1", "a name in another case", call{body: "Token={AT1}"}),
		good("MF-18", "RFC 6749 3.2", "an unknown parameter repeated", "x=1&token={AT1}&x=2", pair),
		gzip("gzip"), gzip("br"), gzip("deflate"),
		good("contract", "2 \"Empty parameters count as absent\"", "an empty pair between ampersands", "&&token={AT1}&&",
			pair),
		good("contract", "2", "a token that differs only in case is another token", "token=R{AT1-tail}", ""),
	}
}

func transportRows() []row {
	at1 := call{as: "c1", body: "token={AT1}"}
	method := func(id, level, title, name string, a call) row {
		a.method, a.as = name, "c1"
		return row{id: id, level: level, title: title, call: a, status: 405, code: "invalid_request", after: allows("POST")}
	}
	plain := func(id, level, title string, a call) row {
		a.plain = true
		return row{id: id, level: level, title: title, call: a, status: 400, code: "invalid_request"}
	}
	preflight := http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"POST"},
		"Access-Control-Request-Headers": {"authorization"}}
	return []row{
		plain("TM-01", "RFC 7009 2", "plain HTTP has no effect", at1),
		plain("TM-01", "RFC 7009 2", "plain HTTP without credentials", call{body: "token={AT1}"}),
		plain("TM-04", "RFC 7009 2", "X-Forwarded-Proto from an untrusted peer",
			call{as: "c1", body: "token={AT1}", header: http.Header{"X-Forwarded-Proto": {"https"},
				"Forwarded": {"proto=https"}}}),
		method("TM-05", "RFC 9110 15.5.6", "GET where POST is required", "GET", call{path: "?token={AT1}"}),
		method("TM-05", "RFC 9110 15.5.6", "HEAD", "HEAD", call{path: "?token={AT1}"}).headless(),
		method("TM-05", "RFC 9110 15.5.6", "PUT", "PUT", call{body: "token={AT1}"}),
		method("TM-05", "RFC 9110 15.5.6", "DELETE", "DELETE", call{body: "token={AT1}"}),
		method("TM-05", "RFC 9110 15.5.6", "PATCH", "PATCH", call{body: "token={AT1}"}),
		method("TM-05", "RFC 9110 15.5.6", "an unknown method", "BREW", call{body: "token={AT1}"}),
		{id: "TM-10", level: "RFC 7009 2.3", title: "a preflight where CORS is off",
			call: call{method: "OPTIONS", header: preflight}, status: 405, code: "invalid_request", after: noCORS},
		{id: "TM-10", level: "RFC 7009 2.3", title: "a request with an origin where CORS is off",
			call: call{as: "c1", body: "token={AT1}", header: http.Header{"Origin": {"https://app.example"}}}, status: 200,
			dead: pair, after: noCORS},
		method("TM-14", "RFC 7009 2.3", "GET with a callback", "GET", call{path: "?token={AT1}&callback=x"}),
		{id: "TM-14", level: "RFC 7009 2.3", title: "a callback in a POST is ignored",
			call: call{as: "c1", body: "token={AT1}&callback=x"}, status: 200, dead: pair},
		{id: "TM-18", level: "RFC 6749 3.1", title: "a trailing slash is not a redirect",
			call: call{path: "/", as: "c1", body: "token={AT1}"}, status: 404, code: "invalid_request"},
		{id: "TM-17", level: "RFC 9110 15.5.5", title: "a path below the endpoint",
			call: call{path: "/more", as: "c1", body: "token={AT1}"}, status: 404, code: "invalid_request"},
		{id: "TM-21", level: "RFC 6749 3.1", title: "a query component is not form input",
			call: call{path: "?tenant=x", as: "c1", body: "token={AT1}"}, status: 200, dead: pair},
	}
}

// headless returns the row for a HEAD request, whose response does not have a body.
func (r row) headless() row {
	r.code = ""
	return r
}

func allows(methods string) func(t *testing.T, w *tokenSet, m *member, r reply) {
	return func(t *testing.T, _ *tokenSet, _ *member, r reply) {
		if got := r.Header.Get("Allow"); got != methods {
			t.Errorf("got Allow %q, want %q", got, methods)
		}
	}
}

func noCORS(t *testing.T, _ *tokenSet, _ *member, r reply) {
	for name := range r.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("got %s: %q without CORS", name, r.Header.Get(name))
		}
	}
}
