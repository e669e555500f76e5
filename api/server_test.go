package api_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"revoked/api"
)

// A running is an API that listens on its own port. It is closed at the end of the test.
type running struct {
	*bench
	adminBench // only the fields for the server and the client are set
}

// start serves handler, or the API if it is nil.
func start(t testing.TB, handler http.Handler, configure ...func(*api.Config)) *running {
	t.Helper()
	r := &running{bench: newBench(t, configure...)}
	if handler == nil {
		handler = r.api.Handler()
	}
	serveAdmin(t, &r.adminBench, handler)
	return r
}

func (r *running) introspect(c *http.Client, scheme string) (*http.Response, string, error) {
	req, err := http.NewRequest(http.MethodPost, scheme+"://"+r.addr+pathIntrospect, strings.NewReader("token=AT1"))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", formType)
	req.Header.Set("Authorization", as("rs1"))
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func TestServer_PlainHTTP_IsRejected(t *testing.T) {
	r := start(t, nil)
	for _, h2 := range []bool{false, true} {
		res, body, err := r.introspect(r.client(t, h2), "https")
		if err != nil || res.StatusCode != 200 || !strings.HasPrefix(body, `{"active":true`) ||
			res.Header.Get("Server") != "" {
			t.Errorf("HTTP/2 %t: got %v %s, error %v, want 200", h2, res, body, err)
		}
	}
	res, body, err := r.introspect(http.DefaultClient, "http")
	if err != nil || res.StatusCode != 400 || !strings.HasPrefix(body, `{"error":"invalid_request"`) {
		t.Errorf("TM-01 plain HTTP: got %v %s, error %v, want 400 invalid_request", res, body, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// raw sends bytes. It returns a text with the status, the body, and whether the connection closes.
func (r *running) raw(t *testing.T, plain bool, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !plain {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "closed"
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s %t", res.StatusCode, b, res.Close)
}

func TestServer_AmbiguousLength_IsRejected(t *testing.T) {
	r := start(t, nil)
	head := "POST /oauth2/revoke HTTP/1.1\r\nHost: as.example\r\nAuthorization: " + as("c1") + "\r\nContent-Type: " +
		formType + "\r\n"
	const chunks = "9\r\ntoken=AT1\r\n0\r\n\r\n"
	for _, plain := range []bool{false, true} {
		got := r.raw(t, plain, head+"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks)
		if !strings.HasPrefix(got, `400 {"error":"invalid_request"`) || !strings.HasSuffix(got, "true") {
			t.Errorf("TM-20 (plain %t): got %s, want 400 and a closed connection", plain, got)
		}
	}
	if !r.active(t, "AT1") {
		t.Fatal("got a revoked token after the refusals, want an active one")
	}
	if got := r.raw(t, false, head+"Transfer-Encoding: chunked\r\n\r\n"+chunks); got != "200 {} false" {
		t.Errorf("only chunks: got %s, want 200 and an open connection", got)
	}
	if r.active(t, "AT1") {
		t.Error("got an active token after the chunked body, want a revoked one")
	}
}
