//go:build system

package systemtest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dial connects to a gateway that logs users in.
func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(longStop)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// oauthbearer is the initial response of a login as alice (RFC 7628 section 3.1).
func oauthbearer(user, token string) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "n,a=%s,\x01auth=Bearer %s\x01\x01", user, token))
}

const dovecotAround = `protocols = imap
base_dir = DIR/run/base
state_dir = DIR/run/state
log_path = DIR/run/error.log
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:DIR/mail/%%u
userdb {
  driver = static
  args = uid=65534 gid=65534 home=DIR/mail/%%u
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = %s
  }
  inet_listener imaps {
    port = 0
  }
}
# Do not slow down a client after failures: this test causes many.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
!include DIR/revoked.conf
`

// startDovecot runs Dovecot with deploy/examples/dovecot, which calls the local proxy. Its
// processes run as their own users.
func startDovecot(t *testing.T, c *cluster, local string) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cl := c.Clients["gateway"]
	w.example(t, "dovecot/revoked.conf", map[string]string{"/etc/dovecot/": "DIR/"})
	w.example(t, "dovecot/revoked-oauth2.conf.ext", map[string]string{
		"CLIENT_ID": url.PathEscape(cl.ClientID), "CLIENT_SECRET@": percentEncode(cl.ClientSecret) + "@",
		"127.0.0.1:8480": local,
	})
	_, port, _ := net.SplitHostPort(addr)
	config := w.write(t, "dovecot.conf", fmt.Sprintf(dovecotAround, port))
	awaitAddress(t, addr, filepath.Join(w.dir, "run/error.log"), []string{"dovecot", "-F", "-c", config})
	return &gateway{name: "Dovecot", ask: func(t *testing.T, token string) verdict { return imapLogin(t, addr, token) }}
}

// percentEncode encodes everything but letters and digits.
func percentEncode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// imapLogin logs in to an IMAP server as alice.
func imapLogin(t *testing.T, addr, token string) verdict {
	t.Helper()
	conn, r := dial(t, addr)
	defer conn.Close()
	fmt.Fprintf(conn, "a AUTHENTICATE OAUTHBEARER %s\r\n", oauthbearer("alice", token))
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			t.Fatal(err)
		case strings.HasPrefix(line, "+ "): // RFC 7628 section 3.2.3: the client ends the failed exchange
			fmt.Fprint(conn, "AQ==\r\n")
		case strings.HasPrefix(line, "a OK"):
			return letIn
		case strings.HasPrefix(line, "a NO [AUTHENTICATIONFAILED]"):
			return refused
		case strings.HasPrefix(line, "a NO [UNAVAILABLE]"):
			return unavailable
		case !strings.HasPrefix(line, "* "):
			t.Fatalf("got %q, want OK, NO [AUTHENTICATIONFAILED] or NO [UNAVAILABLE]", line)
		}
	}
}

const prosodyAround = `pidfile = "DIR/run/pid"
data_path = "DIR/run"
log = "DIR/run/error.log"
interfaces = { "127.0.0.1" }
c2s_ports = { %s }
modules_enabled = { "saslauth" }
modules_disabled = { "s2s" }
storage = "memory"
Include "DIR/revoked.cfg.lua"
`

// startProsody runs Prosody with deploy/examples/prosody.
func startProsody(t *testing.T, c *cluster) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	cl := c.Clients["gateway"]
	w.example(t, "prosody/mod_auth_revoked.lua", nil)
	w.example(t, "prosody/revoked.cfg.lua", map[string]string{
		"/etc/prosody/modules": "DIR", "/etc/revoked/": "DIR/", "CLIENT_ID": cl.ClientID, "CLIENT_SECRET": cl.ClientSecret,
		"c2s_require_encryption = true": "c2s_require_encryption = false",
		"https://127.0.0.1":             "https://localhost", // Prosody compares only names, not addresses
	})
	_, port, _ := net.SplitHostPort(addr)
	config := w.write(t, "prosody.cfg.lua", fmt.Sprintf(prosodyAround, port))
	w.giveAway(t)
	awaitAddress(t, addr, filepath.Join(w.dir, "run/error.log"), asNobody("prosody", "-F", "--config", config))
	return &gateway{name: "Prosody", ask: func(t *testing.T, token string) verdict { return xmppLogin(t, addr, token) }}
}

// xmppLogin logs in to an XMPP server as alice.
func xmppLogin(t *testing.T, addr, token string) verdict {
	t.Helper()
	conn, r := dial(t, addr)
	defer conn.Close()
	var got strings.Builder
	until := func(ends ...string) string {
		for {
			for _, end := range ends {
				if strings.Contains(got.String(), end) {
					return end
				}
			}
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("%v after %q", err, got.String())
			}
			got.WriteByte(b)
		}
	}
	fmt.Fprint(conn, "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' "+
		"xmlns:stream='http://etherx.jabber.org/streams'>")
	until("</stream:features>")
	fmt.Fprintf(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='OAUTHBEARER'>%s</auth>",
		oauthbearer("alice@example.org", token))
	switch until("<success", "</failure>"); {
	case strings.Contains(got.String(), "<success"):
		return letIn
	case strings.Contains(got.String(), "<not-authorized/>"):
		return refused
	case strings.Contains(got.String(), "<temporary-auth-failure/>"):
		return unavailable
	default:
		t.Fatalf("got %q, want success, not-authorized or temporary-auth-failure", got.String())
		return ""
	}
}
