package api

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"revoked/api/console"
	"revoked/api/request"
	"revoked/api/serve"
	"revoked/api/tokens"
	"revoked/internal/textsafe"
	"revoked/internal/tracing"
)

// Header values shared by all responses. They must not be changed.
var (
	noStore = []string{"no-store"}
	noCache = []string{"no-cache"}
	noSniff = []string{"nosniff"}
)

// middleware wraps every request. It sets the common headers, checks the transport, answers CORS,
// recovers panics and writes the response to an error. At the end it counts the request and writes
// its only log line. The package has no other middleware.
//
// The order matters. The headers come first, so that every answer has them, including a refusal and
// the answer to a panic. CORS precedes the refusals, because a browser hides an answer without its
// headers from the page. The capacity check precedes everything that reads the body.
func (a *API) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r := &request.Request{Context: c, IDs: a.ids, Inner: request.InnerOf(c.Request().Context())}
		if r.Inner == nil { // a call of the console runs in the browser's request, which is counted
			a.metrics.inFlight.Inc()
		} else {
			r.Quiet = r.Inner.Repeated
		}
		span := a.beginTrace(r)
		defer func() {
			abort := false
			if p := recover(); p != nil {
				abort = a.recovered(r, p)
			}
			a.finish(r, start)
			endTrace(r, span)
			if abort {
				panic(http.ErrAbortHandler)
			}
		}()
		h := r.Response().Header()
		h["Cache-Control"], h["Pragma"], h["X-Content-Type-Options"] = noStore, noCache, noSniff
		if strings.HasPrefix(r.Request().URL.Path, pathCheck) {
			tokens.ClearIdentity(h)
		}
		if len(a.cfg.CORSOrigins) > 0 && a.cors(r) {
			return nil
		}
		err := a.checkCapacity(r)
		if err == nil {
			err = a.checkTransport(r)
		}
		if err == nil {
			err = next(r)
		}
		if err != nil {
			a.noteRefusal(r, err)
			a.fail(r, err)
		}
		return nil
	}
}

// fail writes the response to an error. A request below the path of the console gets a page
// instead of JSON.
func (a *API) fail(r *request.Request, err error) {
	if a.console != nil && console.Owns(r.Request().URL.Path) {
		a.console.Fail(r, err)
		return
	}
	r.Fail(err)
}

// beginTrace starts the span of a request. Probes and scrapes do not have a span.
func (a *API) beginTrace(r *request.Request) tracing.Span {
	if a.cfg.Tracer == nil {
		return tracing.Span{}
	}
	route := a.route(r)
	switch route {
	case pathLive, pathReady, pathMetrics:
		return tracing.Span{}
	}
	req, parent := r.Request(), tracing.Context{}
	if sent := req.Header["Traceparent"]; len(sent) == 1 && inside(a.cfg.TraceNetworks, a.access.Addr(r)) {
		parent = tracing.Context{Parent: sent[0], State: strings.Join(req.Header["Tracestate"], ",")}
	}
	ctx, span := a.cfg.Tracer.Root(req.Context(), methodName(req.Method)+" "+route, parent)
	if span.IsSampled() {
		span.Set(tracing.Text("http.request.method", methodName(req.Method)), tracing.Text("http.route", route))
		r.SetRequest(req.WithContext(ctx))
	}
	return span
}

// endTrace ends the span of a request. It marks the span as an error only after a 5xx.
func endTrace(r *request.Request, span tracing.Span) {
	if !span.IsSampled() {
		return
	}
	status, kind := r.Response().Status, ""
	if status >= http.StatusInternalServerError {
		kind = r.Outcome
	}
	span.Set(tracing.Int("http.response.status_code", status), tracing.Text("revoked.outcome", r.Outcome))
	span.End(kind)
}

// recovered handles the value of a panic. Handlers panic with [http.ErrAbortHandler] to abort a
// response that they cannot finish. Other panics are answered with 500. It returns true if the
// connection must be closed, so that the client does not mistake a partial response for a whole
// one.
func (a *API) recovered(r *request.Request, p any) (abort bool) {
	if p == http.ErrAbortHandler {
		r.Outcome = cmp.Or(r.Outcome, "aborted")
		return true
	}
	a.metrics.panics.Inc()
	// The value may hold input of the handler, so the log gets its type only.
	a.cfg.Log.Error("handler panicked", slog.String("route", a.route(r)), slog.String("type", fmt.Sprintf("%T", p)),
		slog.String("stack", string(debug.Stack())))
	f := request.StatusFailure(r.Request().URL.Path, http.StatusInternalServerError)
	f.Outcome, f.Cause = "panic", errors.New("handler panicked")
	if r.Response().Committed {
		r.Outcome, r.Err = f.Outcome, f.Cause
		return true
	}
	r.Fail(f)
	return false
}

// checkCapacity refuses a request for which the port has no capacity. Probes and metrics are served
// even then.
func (a *API) checkCapacity(r *request.Request) error {
	f := serve.Refused(r.Request())
	if f == nil {
		return nil
	}
	answer := &request.Failure{Status: f.Status, Title: f.Text, Outcome: "limit_" + f.Cause, Unrouted: true}
	if f.Status == http.StatusServiceUnavailable {
		switch a.route(r) {
		case pathLive, pathReady, pathMetrics:
			return nil
		}
		answer.Code = request.CodeUnavailable
	}
	r.Flood = true
	return answer
}

// checkTransport rejects a request whose body length is ambiguous, and plain HTTP if HTTPS is
// required.
func (a *API) checkTransport(r *request.Request) error {
	req := r.Request()
	if serve.AmbiguousLength(req) {
		r.Response().Header().Set("Connection", "close")
		return &request.Failure{Status: http.StatusBadRequest, Title: "both Content-Length and Transfer-Encoding",
			Outcome: "ambiguous", Unrouted: true}
	}
	if a.cfg.RequireHTTPS && !a.secure(req) {
		return &request.Failure{Status: http.StatusBadRequest, Title: "HTTPS is required", Outcome: "plain_http",
			Unrouted: true}
	}
	return nil
}

// secure reports whether the request came over TLS, to this node or to a trusted proxy. It trusts
// X-Forwarded-Proto only if the peer itself is a trusted proxy and sent the header once: a second
// value could come from the caller.
func (a *API) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if len(a.cfg.TrustedProxies) == 0 {
		return false
	}
	proto := r.Header["X-Forwarded-Proto"]
	return len(proto) == 1 && strings.EqualFold(proto[0], "https") && inside(a.cfg.TrustedProxies, request.Peer(r))
}

// inside reports whether one of the networks contains the address. It returns false for the zero
// address.
func inside(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// ipExtractor returns the function that echo uses to find a client's address.
func ipExtractor(trusted []netip.Prefix) echo.IPExtractor {
	direct := echo.ExtractIPDirect()
	return func(r *http.Request) string {
		if addr := serve.CallerAddr(r, trusted); addr.IsValid() {
			return addr.String()
		}
		return direct(r)
	}
}

// cors adds the headers of the Fetch standard if the origin is configured, even to errors. It
// answers preflights and returns true for them. It covers the OAuth endpoints and the metadata, and
// never allows credentials mode.
func (a *API) cors(r *request.Request) (answered bool) {
	req := r.Request()
	methods := a.allowedMethods(req.URL.Path)
	if methods == "" {
		return false
	}
	h := r.Response().Header()
	h.Add("Vary", "Origin")
	origin := req.Header.Get("Origin")
	switch {
	case origin == "":
		return false
	case slices.Contains(a.cfg.CORSOrigins, "*"):
		h.Set("Access-Control-Allow-Origin", "*")
	case slices.Contains(a.cfg.CORSOrigins, origin):
		h.Set("Access-Control-Allow-Origin", origin)
	default:
		return false
	}
	h.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
	if req.Method != http.MethodOptions || req.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if a.cfg.RequireHTTPS && !a.secure(req) {
		return false
	}
	h.Add("Vary", "Access-Control-Request-Method")
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "authorization, content-type")
	h.Set("Access-Control-Max-Age", "600")
	h.Set("Allow", methods)
	r.Outcome, r.Quiet = "preflight", true
	r.Response().WriteHeader(http.StatusNoContent)
	return true
}

// finish counts the request and writes its log line. The level is debug for a success of a
// frequently called route, for a health probe, and for a refusal at a limit. It is warning for a
// 5xx and for a gateway without valid credentials, else info.
func (a *API) finish(r *request.Request, start time.Time) {
	if r.Inner == nil {
		a.metrics.inFlight.Dec()
	}
	took := time.Since(start)
	status := r.Response().Status
	a.access.Finish(r, status)
	switch {
	case r.Outcome != "":
	case status >= http.StatusBadRequest:
		r.Outcome = "refused"
	default:
		r.Outcome = "ok"
	}
	route := a.route(r)
	a.routes[route].add(status, r.Outcome, took)
	level := slog.LevelInfo
	switch {
	case route == pathLive || route == pathReady:
		level = slog.LevelDebug // probes come every second, and 503 is an ordinary answer
	case r.Flood:
		level = slog.LevelDebug
	case status >= http.StatusInternalServerError || r.Outcome == tokens.OutcomeGateway:
		level = slog.LevelWarn
	case r.Quiet && status < http.StatusBadRequest:
		level = slog.LevelDebug
	}
	req := r.Request()
	if !a.cfg.Log.Enabled(req.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 11)
	if r.Outcome == request.OutcomeNoLeader && level > slog.LevelDebug {
		shown, suppressed := a.leaderless.take(a.cfg.Now())
		if !shown {
			return
		}
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	attrs = append(attrs,
		slog.String("method", methodName(req.Method)), slog.String("route", route), slog.Int("status", status),
		slog.Float64("duration_seconds", took.Seconds()), slog.String("outcome", r.Outcome),
		slog.String("remote", textsafe.Clean(r.RealIP(), maxLogged)), slog.String("request_id", r.ID()))
	if r.Client != nil {
		attrs = append(attrs, slog.String("client_id", textsafe.Clean(r.Client.ID, maxLogged)))
	}
	if r.Err != nil && status >= http.StatusInternalServerError {
		// The error of a 4xx may quote input, which may contain a token in place of a name.
		attrs = append(attrs, slog.String("error", r.Err.Error()))
	}
	a.logOf(r, level).LogAttrs(req.Context(), level, "request", attrs...)
}

// logOf returns the log for the line of a request. Lines about problems, and about calls by
// administrators and operators, must not be lost if the process is killed.
func (a *API) logOf(r *request.Request, level slog.Level) *slog.Logger {
	if level >= slog.LevelWarn || r.Client != nil && r.Client.HasAny(operators...) {
		return a.cfg.Log
	}
	return a.cfg.RequestLog
}

// sparseTime is the minimum time between two log lines of requests that failed without a leader.
// Lines about elections have the same limit, so both together are at most one line a second.
const sparseTime = 2 * time.Second

// sparseLines limits log lines to one in sparseTime. Without a leader every request fails in the
// same way, and the lines would hide all others. The zero value is ready, for concurrent use.
type sparseLines struct {
	mu         sync.Mutex
	next       time.Time
	suppressed int
}

// take reports whether a line is shown now, and how many were suppressed since the last one.
func (s *sparseLines) take(now time.Time) (shown bool, suppressed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.next) && s.next.Sub(now) <= sparseTime { // a longer time: the clock was set back
		s.suppressed++
		return false, 0
	}
	suppressed, s.suppressed, s.next = s.suppressed, 0, now.Add(sparseTime)
	return true, suppressed
}

// methodName returns a method for the log. If a body is longer than its Content-Length, its rest is
// parsed as the next request, so the method may contain a token.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// noRoute is the route label of a request that matches no route.
const noRoute = "none"

// route returns the path of the route that matched. Without a match, echo's Path is the path of the
// request, which must not become a label or part of a log line.
func (a *API) route(r *request.Request) string {
	if _, ok := a.routes[r.Path()]; ok {
		return r.Path()
	}
	return noRoute
}

// maxLogged bounds a value from the request in a log line, in bytes.
const maxLogged = 64
