package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/api/serve"
	"revoked/internal/await"
	"revoked/node/jwt"
)

// A tlsBench is an API on a port, with the TLS configuration of the product. Its clock is the
// machine's clock plus a shift.
type tlsBench struct {
	*bench
	addr   string
	roots  *x509.CertPool // CAs of the server's certificate
	caFile string         // "": callers may have certificates of any CA
	cas    *serve.ClientCAs
	shift  *atomic.Int64
}

// newTLSBench starts an API. If clientCAs is not empty, one of these CAs must have issued the
// certificate of a caller. The record of the client cm has the certificate subject CN=cm and, if
// self is set, the public key of self.
func newTLSBench(t *testing.T, self *tls.Certificate, clientCAs ...*ca) *tlsBench {
	t.Helper()
	b := &tlsBench{shift: new(atomic.Int64)}
	if clientCAs != nil {
		b.caFile = filepath.Join(t.TempDir(), "clients.pem")
		b.write(t, clientCAs...)
		var err error
		if b.cas, err = serve.LoadClientCAs(b.caFile); err != nil {
			t.Fatal(err)
		}
	}
	b.bench = newBench(t, func(c *api.Config) {
		c.ClientCAs = b.cas.Pool
		c.Now = func() time.Time { return time.Now().Add(time.Duration(b.shift.Load())) }
		c.AuthFailuresPerMinute = 10_000
	})
	cm := tlsClient("cm", revoked.SubjectDN, "CN=cm", revoked.RoleResourceServer)
	if self != nil {
		keys, err := jwt.ParseInline([]byte(jwks(t, trustedKey{self.PrivateKey.(*ecdsa.PrivateKey), "cert"})))
		if err != nil {
			t.Fatal(err)
		}
		cm.AuthMethods, cm.Keys, cm.Subject = []string{revoked.AuthSelfSigned}, keys, revoked.CertificateSubject{}
	}
	b.node.put(cm)
	own := newLiveCA(t)
	b.roots = own.pool()
	_, b.addr = serveTLS(t, b.api.Handler(), serve.TLSConfig(serverCertificate(t, own), b.cas))
	return b
}

// write replaces the file of the CAs. The node reads it only at the next reload.
func (b *tlsBench) write(t *testing.T, clientCAs ...*ca) {
	t.Helper()
	var text bytes.Buffer
	for _, c := range clientCAs {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(b.caFile, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload replaces the CAs of the running node, as SIGHUP does.
func (b *tlsBench) reload(t *testing.T, clientCAs ...*ca) {
	t.Helper()
	b.write(t, clientCAs...)
	if changed, err := b.cas.Reload(); !changed || err != nil {
		t.Fatalf("reload: got changed %t, error %v, want a change", changed, err)
	}
}

// newLiveCA returns a CA whose certificate is valid now.
func newLiveCA(t testing.TB) *ca {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{key: k}
	c.cert = c.sign(t, live(caTemplate(rand.Text())), k)
	return c
}

// live sets the validity of a template to a period that contains the current time.
func live(template *x509.Certificate) *x509.Certificate {
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	return template
}

// issue returns a certificate for the client cm, with its key.
func (c *ca) issue(t testing.TB, change ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := live(&x509.Certificate{Subject: pkix.Name{CommonName: "cm"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	for _, f := range change {
		f(template)
	}
	cert := c.sign(t, template, k)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: k, Leaf: cert}
}

// selfSigned returns a certificate that its own key signed.
func selfSigned(t testing.TB, change ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	c := newLiveCA(t)
	template := live(&x509.Certificate{Subject: pkix.Name{CommonName: "cm"}})
	for _, f := range change {
		f(template)
	}
	cert := (&ca{key: c.key}).sign(t, template, c.key)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: c.key, Leaf: cert}
}

// expired sets the expiry of a certificate to a minute ago.
func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

// serverCertificate returns a certificate for 127.0.0.1, loaded from files as the product does.
func serverCertificate(t *testing.T, authority *ca) *serve.Certificate {
	t.Helper()
	pair := authority.issue(t, func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := serve.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A dialect is a version of HTTP and one of TLS.
type dialect struct {
	h2      bool
	version uint16
}

func (d dialect) String() string {
	return fmt.Sprintf("HTTP/2 %t over %s", d.h2, tls.VersionName(d.version))
}

func dialects() []dialect {
	return []dialect{
		{false, tls.VersionTLS12}, {false, tls.VersionTLS13}, {true, tls.VersionTLS12}, {true, tls.VersionTLS13},
	}
}

// A tlsCaller is a caller with its own connections.
type tlsCaller struct {
	b    *tlsBench
	http *http.Client
	h2   bool
	cfg  *tls.Config // TLS configuration of its connections
}

// caller returns a caller with or without a certificate. It presents the certificate even if the
// server requests certificates of other CAs, as an attacker would.
func (b *tlsBench) caller(t *testing.T, d dialect, cert *tls.Certificate, change ...func(*tls.Config)) *tlsCaller {
	cfg := &tls.Config{RootCAs: b.roots, MinVersion: d.version, MaxVersion: d.version}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	for _, f := range change {
		f(cfg)
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: d.h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &tlsCaller{b, &http.Client{Transport: tr}, d.h2, cfg}
}

// A result is the outcome of a request.
type result struct {
	status          int
	reused, resumed bool // whether the connection was reused, and the TLS session resumed
	err             error
}

// ask introspects an unknown token as cm.
func (c *tlsCaller) ask(t *testing.T) result {
	t.Helper()
	return c.send(t, "client_id=cm&token=x", "")
}

func (c *tlsCaller) send(t *testing.T, body, auth string) (h result) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { h.reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.b.addr+pathIntrospect,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", formType)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	if got := res.ProtoMajor == 2; got != c.h2 {
		t.Fatalf("got %s, want HTTP/2 %t", res.Proto, c.h2)
	}
	h.status, h.resumed = res.StatusCode, res.TLS.DidResume
	return h
}

// want fails the test unless the answer has the status.
func (h result) want(t *testing.T, status int, what string) {
	t.Helper()
	if h.err != nil || h.status != status {
		t.Errorf("%s: got %d and %v, want %d", what, h.status, h.err, status)
	}
}

// want fails the test unless an introspection gets the status. Status 0 means that the server must
// refuse the handshake. The caller then does not send a request, because the connection might close
// before the caller reads the alert.
func (c *tlsCaller) want(t *testing.T, status int, what string) {
	t.Helper()
	if status != 0 {
		c.ask(t).want(t, status, what)
		return
	}
	conn, err := tls.Dial("tcp", c.b.addr, c.cfg)
	if err == nil { // with TLS 1.3 the alert arrives after the handshake
		defer conn.Close()
		if err = conn.SetDeadline(time.Now().Add(await.Limit)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		t.Errorf("%s: got %v, want an alert of the server", what, err)
	}
}

// CA-39, CA-41 and CA-42 through a handshake: only certificates of api_client_ca pass.
func TestTLSClientAuth_Handshake_AcceptsConfiguredCAs(t *testing.T) {
	authority, stranger := newLiveCA(t), newLiveCA(t)
	b := newTLSBench(t, nil, authority)
	under := &ca{}
	{
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		under.key, under.cert = k, authority.sign(t, live(caTemplate("intermediate")), k)
	}
	chained := under.issue(t)
	alone := *chained
	chained.Certificate = append(chained.Certificate, under.cert.Raw)
	subject := func(c *x509.Certificate) { c.Subject.CommonName = "other" }
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	for _, d := range dialects() {
		for _, row := range []struct {
			what string
			cert *tls.Certificate
			want int
		}{
			{"CA-39", authority.issue(t), 200},
			{"through an intermediate CA", chained, 200}, {"without the intermediate", &alone, 0},
			{"CA-41 another subject", authority.issue(t, subject), 401}, {"CA-41 none", nil, 401},
			{"CA-41 untrusted CA", stranger.issue(t), 0}, {"CA-41 self-signed", selfSigned(t), 0},
			{"expired", authority.issue(t, expired), 0}, {"not valid yet", authority.issue(t, early), 0},
			{"for servers", authority.issue(t, forServers), 0},
		} {
			b.caller(t, d, row.cert).want(t, row.want, row.what+", "+d.String())
		}
		plain := b.caller(t, d, nil, func(c *tls.Config) { c.Certificates = []tls.Certificate{*stranger.issue(t)} })
		plain.want(t, 401, "a caller that does not send the certificate of another CA, "+d.String())
		plain.send(t, "token=x", as("c1")).want(t, 200, "Basic without a certificate, "+d.String())
		with := b.caller(t, d, authority.issue(t))
		with.send(t, "token=x", as("c1")).want(t, 200, "CA-42 Basic, "+d.String())
	}
}

// Without api_client_ca, any certificate passes the handshake. Only its key is compared.
func TestSelfSignedTLSClientAuth_Handshake_KeyMustMatch(t *testing.T) {
	self := selfSigned(t)
	b := newTLSBench(t, self)
	renew := func(template *x509.Certificate) *tls.Certificate { // another certificate for the same key
		key := self.PrivateKey.(*ecdsa.PrivateKey)
		cert := (&ca{key: key}).sign(t, template, key)
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	old := live(&x509.Certificate{})
	expired(old)
	for _, d := range dialects() {
		for _, row := range []struct {
			what string
			cert *tls.Certificate
			want int
		}{
			{"its certificate", self, 200}, {"another certificate of its key", renew(live(&x509.Certificate{})), 200},
			{"an expired certificate of its key", renew(old), 401}, {"another key", selfSigned(t), 401}, {"none", nil, 401},
			{"another key, of a CA", newLiveCA(t).issue(t), 401},
		} {
			b.caller(t, d, row.cert).want(t, row.want, row.what+", "+d.String())
		}
		b.caller(t, d, self).send(t, "token=x", as("c1")).want(t, 200, "CA-42 Basic, "+d.String())
	}
}

// An open connection does not authenticate its requests. Each request is checked against the
// current record and the current time.
func TestTLSClientAuth_OpenConnection_UsesCurrentRecord(t *testing.T) {
	authority, self := newLiveCA(t), selfSigned(t)
	other, err := jwt.ParseInline([]byte(jwks(t, newTrustedKey(t, "k"))))
	if err != nil {
		t.Fatal(err)
	}
	changes := map[string]func(*revoked.Client){
		"disabled": func(c *revoked.Client) { c.Disabled = true },
		"without its method": func(c *revoked.Client) {
			c.AuthMethods, c.Secrets = []string{revoked.AuthBasic}, []revoked.SecretHash{strong("s")}
			c.Subject, c.Keys = revoked.CertificateSubject{}, nil
		},
		"renamed": func(c *revoked.Client) {
			if c.Keys != nil {
				c.Keys = other
				return
			}
			c.Subject.Value = "CN=another"
		},
	}
	for name, setup := range map[string]struct {
		bench *tlsBench
		cert  *tls.Certificate
	}{
		revoked.AuthTLS:        {newTLSBench(t, nil, authority), authority.issue(t)},
		revoked.AuthSelfSigned: {newTLSBench(t, self), self},
	} {
		b := setup.bench
		record, _ := b.node.Client("cm")
		for _, d := range dialects() {
			c := b.caller(t, d, setup.cert)
			again := func(status int, what string) {
				t.Helper()
				h := c.ask(t)
				h.want(t, status, fmt.Sprintf("%s, %s, %s", name, what, d))
				if !h.reused {
					t.Errorf("%s, %s, %s: got a new connection, want the open one", name, what, d)
				}
			}
			c.want(t, 200, name)
			for what, change := range changes {
				b.node.change("cm", change)
				again(401, what)
				b.node.put(*record)
				again(200, "after "+what)
			}
			b.shift.Store(int64(2 * time.Hour))
			again(401, "when the certificate has expired")
			b.shift.Store(0)
			again(200, "before that")
		}
	}
}

// Once a CA is removed from the file, its certificates no longer authenticate. That includes open
// connections, a resumed session (RFC 8446 section 2.2) and a new handshake. A stream that such a
// certificate has opened closes.
func TestClientCAs_CARemoved_CertificatesAreRejected(t *testing.T) {
	for _, d := range dialects() {
		t.Run(d.String(), func(t *testing.T) {
			older, newer := newLiveCA(t), newLiveCA(t)
			b := newTLSBench(t, nil, older)
			before, after := older.issue(t), newer.issue(t)
			sessions := tls.NewLRUClientSessionCache(8)
			remember := func(c *tls.Config) { c.ClientSessionCache, c.ServerName = sessions, "127.0.0.1" }
			open := b.caller(t, d, before, remember)
			open.want(t, 200, "the old CA")
			h := b.caller(t, d, before, remember).ask(t)
			h.want(t, 200, "a resumed session")
			if !h.resumed {
				t.Error("got a full handshake, want a resumed session")
			}
			b.caller(t, d, after).want(t, 0, "the new CA before the change")

			b.reload(t, older, newer)
			open.want(t, 200, "the old CA, with both in the file, open connection")
			b.caller(t, d, before).want(t, 200, "the old CA, with both in the file")
			b.caller(t, d, after).want(t, 200, "the new CA, with both in the file")
			b.caller(t, d, before, remember).want(t, 200, "a resumed session, with both in the file")
			feed := b.follow(t, b.caller(t, d, before))

			b.reload(t, newer)
			h = open.ask(t)
			h.want(t, 401, "the removed CA, on the open connection")
			if !h.reused {
				t.Error("got a new connection, want the open one")
			}
			b.caller(t, d, before, remember).want(t, 0, "the removed CA, resuming a session")
			b.caller(t, d, nil, remember).want(t, 401, "a session of the removed CA, without a certificate")
			b.caller(t, d, before).want(t, 0, "the removed CA, in a new handshake")
			b.caller(t, d, after).want(t, 200, "the new CA, alone in the file")
			if end := await.Receive(t, feed, "the end of the stream"); !strings.Contains(end, `"reason":"key_ended"`) {
				t.Errorf("the stream: got the end %q, want key_ended", end)
			}

			if err := os.WriteFile(b.caFile, []byte("no certificate"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := b.cas.Reload(); err == nil {
				t.Error("a file without a certificate: got no error, want one")
			}
			b.caller(t, d, after).want(t, 200, "after a file that cannot be read")
			b.caller(t, d, before).want(t, 0, "the removed CA after a file that cannot be read")
		})
	}
}

// follow opens the feed as cm and returns the last line of the stream, once it has ended.
func (b *tlsBench) follow(t *testing.T, c *tlsCaller) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+b.addr+"/v1/revocations?follow=true",
		http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Revoked-Client-Id", "cm")
	res, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the feed: got %d, want 200", res.StatusCode)
	}
	end := make(chan string, 1)
	go func() {
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		lines := strings.Split(strings.TrimSpace(string(body)), "\n")
		end <- lines[len(lines)-1]
	}()
	return end
}
