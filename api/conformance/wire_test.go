package conformance_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The test sends bytes that an ordinary HTTP client does not send.
func TestWire_UnusualBytes_Conforms(t *testing.T) {
	s := newStage(t, options{})
	t.Run("rows", func(t *testing.T) { runScenarios(t, s, wireScenarios()) })
}

func wireScenarios() []scenario {
	return []scenario{
		{"MF-21", "contract 2", "a body that arrives too slowly", slowBody},
		{"MF-19", "RFC 9112 8", "a body shorter than its Content-Length", truncatedBody},
		{"TM-01", "contract 2 \"The API port looks at the first byte\"", "plain HTTP on the TLS port gets 400 in JSON",
			plainOnTheWire},
		{"TM-16", "RFC 8996", "TLS 1.0 and 1.1 are refused", oldTLS},
		{"TM-16", "RFC 10015", "TLS 1.2 without forward secrecy or with finite-field keys is refused", oldKeyExchange},
		{"TM-15", "contract 2 \"TLS 1.2 and up\"", "TLS 1.2 and 1.3", newTLS},
		{"TM-19", "contract 2 \"HTTP/1.0, 1.1 and 2\"", "every version of HTTP", httpVersions},
		{"TM-20", "RFC 9112 6.3", "both Content-Length and Transfer-Encoding", smuggling},
		{"TM-20", "RFC 9112 6.3", "other ambiguous requests", ambiguousRequests},
		{"MF-13", "RFC 9112 7.1", "a chunked body of more than 16 KiB", chunkedBody},
		{"contract", "2 \"Never a redirect, never HTML\"", "bytes that are not HTTP", noHTTP},
	}
}

// dial connects to the API port of a member, with TLS or without.
func (s *stage) dial(t *testing.T, m *member, plain bool) net.Conn {
	t.Helper()
	addr := strings.TrimPrefix(m.URL, "https://")
	var c net.Conn
	var err error
	if plain {
		c, err = net.Dial("tcp", addr)
	} else {
		conf := s.HTTP.Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.NextProtos = []string{"http/1.1"}
		c, err = tls.Dial("tcp", addr, conf)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(longStop)); err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends bytes and reads one response. closed is true if the connection closed without one.
func (s *stage) exchange(t *testing.T, m *member, plain bool, request string) (r reply, closed bool) {
	t.Helper()
	c := s.dial(t, m, plain)
	if _, err := io.WriteString(c, request); err != nil {
		return r, true
	}
	return readAnswer(t, c)
}

func readAnswer(t *testing.T, c net.Conn) (r reply, closed bool) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return r, true
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read the answer: %v", err)
	}
	return reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}, false
}

// post returns the bytes of a revocation by c1, with more headers and this body.
func post(version, headers, body string) string {
	return "POST " + pathRevoke + " " + version + "\r\nHost: as.example\r\nAuthorization: " +
		basicOf("c1:"+secretFor("c1")) +
		"\r\nContent-Type: " + formType + "\r\n" + headers + "\r\n" + body
}

func sized(body string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(body)) }

func slowBody(t *testing.T, s *stage) {
	t.Parallel()
	m := s.Follower(t)
	w := s.newTokens(t, m)
	c := s.dial(t, m, false)
	body := "token=" + w.tokens["AT1"]
	if _, err := io.WriteString(c, post("HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", 1<<13), body)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // an occasional byte must not keep the connection open
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	}()
	r, closed := readAnswer(t, c)
	close(ended)
	if !closed {
		checkOAuth(t, r)
		if r.Status != 400 && r.Status != 408 {
			t.Errorf("got %d %s, want 400 or a closed connection", r.Status, r.Body)
		}
	}
	w.check(t, "")
}

func truncatedBody(t *testing.T, s *stage) {
	m := s.Follower(t)
	w := s.newTokens(t, m)
	body := "token=" + w.tokens["AT1"]
	c := s.dial(t, m, false)
	if _, err := io.WriteString(c, post("HTTP/1.1", fmt.Sprintf("Content-Length: %d\r\n", len(body)+50),
		body)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if r, closed := readAnswer(t, c); !closed {
		checkOAuth(t, r)
		if r.Status != 400 {
			t.Errorf("got %d %s, want 400 or a closed connection", r.Status, r.Body)
		}
	}
	w.check(t, "")
}

func plainOnTheWire(t *testing.T, s *stage) {
	m := s.Follower(t)
	w := s.newTokens(t, m)
	body := "token=" + w.tokens["AT1"]
	for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
		r, closed := s.exchange(t, m, true, post(version, sized(body), body))
		if closed {
			t.Fatalf("%s: the connection was closed", version)
		}
		checkOAuth(t, r)
		if r.Status != 400 || !strings.HasPrefix(r.Body, `{"error":"invalid_request"`) {
			t.Errorf("%s: got %d %s, want 400 invalid_request", version, r.Status, r.Body)
		}
	}
	r, closed := s.exchange(t, m, true,
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: "+basicOf("adm:"+secretFor("adm"))+"\r\n\r\n")
	if closed || r.Status != 400 || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("/v1: got %d %s, want 400 problem+json", r.Status, r.Body)
	}
	w.check(t, "")
}

func oldTLS(t *testing.T, s *stage) {
	addr := strings.TrimPrefix(s.Follower(t).URL, "https://")
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		conf := s.HTTP.Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.MinVersion, conf.MaxVersion = version, version
		if c, err := tls.Dial("tcp", addr, conf); err == nil {
			c.Close()
			t.Errorf("version %x: the handshake was accepted", version)
		}
		suites := append(tls.CipherSuites(), tls.InsecureCipherSuites()...)
		var ids []uint16
		for _, suite := range suites {
			ids = append(ids, suite.ID)
		}
		if alert := helloAlert(t, addr, version, ids); alert == 0 {
			t.Errorf("version %x with every cipher suite: no alert", version)
		}
	}
}

// finiteFieldSuites returns cipher suites of TLS 1.2 that crypto/tls does not offer: DHE_RSA and
// DHE_DSS with AES, Camellia and ChaCha20, anonymous DH, static ECDH.
func finiteFieldSuites() []uint16 {
	return []uint16{0x0033, 0x0039, 0x0067, 0x006b, 0x009e, 0x009f, 0xccaa, 0x0032, 0x0038, 0x0045, 0x0088, 0x0034,
		0x003a, 0x00a6, 0xc004, 0xc00e}
}

func oldKeyExchange(t *testing.T, s *stage) {
	addr := strings.TrimPrefix(s.Follower(t).URL, "https://")
	rsa := []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
	for name, suites := range map[string][]uint16{"RSA key exchange": rsa,
		"finite-field Diffie-Hellman": finiteFieldSuites()} {
		if alert := helloAlert(t, addr, tls.VersionTLS12, suites); alert != 40 {
			t.Errorf("%s: got alert %d, want 40, handshake_failure", name, alert)
		}
	}
	// The same hello with an accepted suite passes, so the alerts are about the suites.
	if alert := helloAlert(t, addr, tls.VersionTLS12,
		[]uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}); alert != 0 {
		t.Errorf("ECDHE: got alert %d, want a ServerHello", alert)
	}
}

// helloAlert sends a ClientHello of a version with these suites. It returns the alert of the
// server, or 0 for a ServerHello.
func helloAlert(t *testing.T, addr string, version uint16, suites []uint16) byte {
	t.Helper()
	var body []byte
	u16 := func(n int) { body = binary.BigEndian.AppendUint16(body, uint16(n)) }
	u16(int(version))
	body = append(body, bytes.Repeat([]byte{7}, 32)...)
	body = append(body, 0) // no session
	u16(2 * len(suites))
	for _, id := range suites {
		u16(int(id))
	}
	body = append(body, 1, 0) // no compression
	extensions := []byte{
		0, 10, 0, 6, 0, 4, 0, 23, 0, 29, // groups: P-256, X25519
		0, 11, 0, 2, 1, 0, // uncompressed points
		0, 13, 0, 10, 0, 8, 4, 3, 8, 4, 4, 1, 8, 7, // signatures: ECDSA, RSA-PSS, RSA, Ed25519
	}
	u16(len(extensions))
	body = append(body, extensions...)
	hello := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	record := append([]byte{22, 3, 1, byte(len(hello) >> 8), byte(len(hello))}, hello...)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(longStop)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(record); err != nil {
		t.Fatal(err)
	}
	var answer [7]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		t.Fatalf("answer to the hello: %v", err)
	}
	switch answer[0] {
	case 21:
		return answer[6]
	case 22:
		return 0
	}
	t.Fatalf("got record type %d", answer[0])
	return 0
}

func newTLS(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for version, token := range map[uint16]string{tls.VersionTLS12: "AT1", tls.VersionTLS13: "ATa"} {
		conf := s.HTTP.Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.MinVersion, conf.MaxVersion = version, version
		conf.NextProtos = nil
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
		r := s.send(t, client, s.Follower(t), pathRevoke, call{as: "c1", body: "token={" + token + "}"}, w.tokens)
		client.CloseIdleConnections()
		checkOAuth(t, r)
		if r.Status != 200 {
			t.Errorf("version %x: got %d %s, want 200", version, r.Status, r.Body)
		}
	}
	w.check(t, pair+" "+whole)
}

func httpVersions(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for version, token := range map[string]string{"HTTP/1.0": "AT1", "HTTP/1.1": "ATa"} {
		body := "token=" + w.tokens[token]
		r, closed := s.exchange(t, s.Follower(t), false, post(version, sized(body), body))
		if closed || r.Status != 200 || r.Body != "{}" {
			t.Errorf("%s: got %d %s, want 200 {}", version, r.Status, r.Body)
		}
		checkOAuth(t, r)
	}
	req, err := http.NewRequest(http.MethodPost, s.Follower(t).URL+pathRevoke, strings.NewReader("token="+w.tokens["AT3"]))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", formType)
	req.SetBasicAuth("c1", secretFor("c1"))
	resp, err := s.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("HTTP/2: got HTTP/%d and %d, want 2 and 200", resp.ProtoMajor, resp.StatusCode)
	}
	w.check(t, pair+" "+whole+" AT3")
	old := s.HTTP.Transport.(*http.Transport).TLSClientConfig.Clone()
	old.NextProtos = []string{"http/1.0"} // some clients negotiate this protocol
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.Follower(t).URL, "https://"), old)
	if err != nil {
		t.Fatalf("HTTP/1.0 by ALPN: %v", err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /livez HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), " 200 OK") {
		t.Errorf("HTTP/1.0 by ALPN: got %q, %v; want 200 and the end", b, err)
	}
}

// smuggling sends bytes that a proxy may parse as one request and this server as two.
func smuggling(t *testing.T, s *stage) {
	m := s.Follower(t)
	w := s.newTokens(t, m)
	body := "token=" + w.tokens["AT1"]
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for _, headers := range []string{
		sized(body) + "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n" + sized(chunk),
		"content-length: 5\r\nTransfer-Encoding: chunked\r\n",
	} {
		for _, plain := range []bool{false, true} {
			r, closed := s.exchange(t, m, plain, post("HTTP/1.1", headers, chunk))
			if closed {
				continue
			}
			if r.Status != 400 {
				t.Errorf("%q: got %d %s, want 400 or a closed connection", headers, r.Status, r.Body)
			}
		}
	}
	w.check(t, "")
}

func ambiguousRequests(t *testing.T, s *stage) {
	m := s.Follower(t)
	w := s.newTokens(t, m)
	body := "token=" + w.tokens["AT1"]
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for _, headers := range []string{
		sized(body) + "Content-Length: 3\r\n", "Content-Length: +" + fmt.Sprint(len(body)) + "\r\n",
		"Content-Length : 5\r\n", "Transfer-Encoding: gzip, chunked\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "Transfer-Encoding: xchunked\r\n",
		"Content-Length: -1\r\n",
	} {
		send := body
		if strings.Contains(headers, "Transfer") {
			send = chunk
		}
		if r, closed := s.exchange(t, m, false, post("HTTP/1.1", headers, send)); !closed &&
			(r.Status < 400 || r.Status >= 500 && r.Status != 501) {
			t.Errorf("%q: got %d %s, want a refusal", headers, r.Status, r.Body)
		}
	}
	if r, closed := s.exchange(t, m, false, strings.Replace(post("HTTP/1.1", sized(body), body), "Host: as.example",
		"Host: a\r\nHost: b", 1)); !closed && r.Status != 400 {
		t.Errorf("two hosts: got %d %s, want 400", r.Status, r.Body)
	}
	w.check(t, "")
}

func chunkedBody(t *testing.T, s *stage) {
	m := s.Follower(t)
	w := s.newTokens(t, m)
	body := "token=" + w.tokens["AT1"]
	big := body + "&x=" + strings.Repeat("x", 20<<10)
	r, closed := s.exchange(t, m, false, post("HTTP/1.1", "Transfer-Encoding: chunked\r\n",
		fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big)))
	if closed || r.Status != 413 {
		t.Errorf("20 KiB in a chunk: got %d %s, want 413", r.Status, r.Body)
	} else {
		checkOAuth(t, r)
	}
	w.check(t, "")
	r, closed = s.exchange(t, m, false, post("HTTP/1.1", "Transfer-Encoding: chunked\r\n",
		fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)))
	if closed || r.Status != 200 {
		t.Errorf("a chunk: got %d %s, want 200", r.Status, r.Body)
	}
	w.check(t, pair)
}

func noHTTP(t *testing.T, s *stage) {
	for _, request := range []string{"\x00\x01\x02\x03\r\n\r\n", "SSH-2.0-x\r\n", "GET\r\n\r\n",
		"POST " + pathRevoke + "\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"} {
		for _, plain := range []bool{false, true} {
			c := s.dial(t, s.Follower(t), plain)
			if _, err := io.WriteString(c, request); err != nil {
				continue
			}
			if cw, ok := c.(interface{ CloseWrite() error }); ok {
				_ = cw.CloseWrite()
			}
			b, _ := io.ReadAll(io.LimitReader(c, 64<<10))
			if bytes.Contains(bytes.ToLower(b), []byte("<html")) || bytes.HasPrefix(b, []byte("HTTP/1.1 2")) ||
				bytes.HasPrefix(b, []byte("HTTP/1.1 3")) {
				t.Errorf("%q: got %q", request, b)
			}
		}
	}
	if r := s.send(t, s.HTTP, s.Follower(t), "/livez", call{method: http.MethodGet}, nil); r.Status != 200 {
		t.Errorf("afterwards: got %d, want 200", r.Status)
	}
}
