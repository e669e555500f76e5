//go:build system

package systemtest

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// freeAddress returns a loopback address with a free port.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
}

// startWebsite starts an HTTP gateway as nobody. Its log is run/error.log.
func (w workshop) startWebsite(t *testing.T, name, addr string, command ...string) *gateway {
	t.Helper()
	w.giveAway(t)
	awaitAddress(t, addr, filepath.Join(w.dir, "run/error.log"), command)
	site := &website{url: "http://" + addr + "/"}
	return &gateway{name: name, ask: site.ask, web: site}
}

// basic returns the credentials of the gateways as the value of REVOKED_GATEWAY.
func (c *cluster) basic() string {
	cl := c.Clients["gateway"]
	return base64.StdEncoding.EncodeToString([]byte(cl.ClientID + ":" + cl.ClientSecret))
}

// certificate returns the API certificate of the first node, which names localhost, with its key.
func (c *cluster) certificate(t *testing.T) string {
	t.Helper()
	var both strings.Builder
	for _, name := range []string{"node1-api.pem", "node1-api-key.pem"} {
		text, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		both.Write(text)
	}
	return both.String()
}

const nginxAround = `daemon off; master_process off; pid DIR/run/pid; error_log DIR/run/error.log;
%s
events {}
http {
	access_log off;
	client_body_temp_path DIR/run/body; proxy_temp_path DIR/run/proxy; fastcgi_temp_path DIR/run/f; uwsgi_temp_path DIR/run/u; scgi_temp_path DIR/run/s;
	include DIR/revoked.conf;
}
`

// startNginx runs nginx with deploy/examples/nginx.
func startNginx(t *testing.T, c *cluster) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	w.example(t, "nginx/revoked.conf", map[string]string{
		"listen 8080;": "listen " + addr + ";", "/var/www/html": "DIR/www", "/etc/revoked/": "DIR/",
		"revoked.example.org": "localhost",
	})
	w.write(t, "nginx-credentials.conf", fmt.Sprintf("proxy_set_header Revoked-Authorization \"Basic %s\";\n", c.basic()))
	return w.startWebsite(t, "nginx", addr, asNobody("nginx", "-c", w.write(t, "nginx.conf", fmt.Sprintf(nginxAround, "")),
		"-e", filepath.Join(w.dir, "run/error.log"))...)
}

// startNjs runs nginx with deploy/examples/nginx-njs.
func startNjs(t *testing.T, c *cluster) *gateway {
	t.Helper()
	w, addr, inner := newWorkshop(t, c), freeAddress(t), freeAddress(t)
	w.example(t, "nginx-njs/revoked.conf", map[string]string{
		"127.0.0.1:8482": inner, "listen 8080;": "listen " + addr + ";", "/var/www/html": "DIR/www", "/etc/revoked/": "DIR/",
		"revoked.example.org": "localhost",
	})
	w.example(t, "nginx-njs/revoked.js", map[string]string{"127.0.0.1:8482": inner})
	w.write(t, "njs-credentials.conf", fmt.Sprintf("set $revoked_credentials \"Basic %s\";\n", c.basic()))
	conf := w.write(t, "nginx.conf", fmt.Sprintf(nginxAround, "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;"))
	return w.startWebsite(t, "nginx with njs", addr, asNobody("nginx", "-c", conf, "-e",
		filepath.Join(w.dir, "run/error.log"))...)
}

// startCaddy runs Caddy with deploy/examples/caddy.
func startCaddy(t *testing.T, c *cluster) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	config := w.example(t, "caddy/Caddyfile", map[string]string{
		":8080 {": "{\n\tadmin off\n}\nhttp://" + addr + " {", "/var/www/html": "DIR/www", "/etc/revoked/": "DIR/",
		"revoked.example.org": "localhost",
	})
	return w.startWebsite(t, "Caddy", addr, asNobody("env", "REVOKED_GATEWAY="+c.basic(), "HOME="+w.dir, "caddy", "run",
		"--config", config, "--adapter", "caddyfile")...)
}

// An haproxy is HAProxy, as a gateway and as the local proxy to the cluster for other gateways.
type haproxy struct {
	gateway       *gateway
	local, secure string // addresses of the proxy: without TLS, with TLS
}

// startHAProxyGateway runs HAProxy with local.cfg, local-tls.cfg and gateway.cfg of
// deploy/examples/haproxy.
func startHAProxyGateway(t *testing.T, c *cluster) haproxy {
	t.Helper()
	w, addr, app := newWorkshop(t, c), freeAddress(t), freeAddress(t)
	local, secure := freeAddress(t), freeAddress(t)
	names := map[string]string{"/etc/revoked/": "DIR/", "revoked.example.org": "localhost", "127.0.0.1:8480": local}
	first := w.example(t, "haproxy/local.cfg", names)
	second := w.example(t, "haproxy/gateway.cfg", map[string]string{
		"/etc/revoked/": "DIR/", "bind :8080": "bind " + addr, "127.0.0.1:8000": app,
	})
	w.example(t, "haproxy/revoked.lua", map[string]string{"127.0.0.1:8480": local})
	third := w.example(t, "haproxy/local-tls.cfg", map[string]string{
		"/etc/revoked/": "DIR/", "127.0.0.1:8481": secure,
	})
	w.write(t, "local.pem", c.certificate(t))
	page := w.write(t, "app.cfg", fmt.Sprintf("frontend app\n\tbind %s\n\thttp-request return status 200 "+
		"content-type text/plain file DIR/www/index.html\n", app))
	g := w.startWebsite(t, "HAProxy with Lua", addr, asNobody("env", "REVOKED_GATEWAY="+c.basic(), "haproxy", "-db",
		"-f", first, "-f", second, "-f", third, "-f", page)...)
	return haproxy{g, local, secure}
}

// startModOAuth2 runs Apache with deploy/examples/apache/revoked.conf. A mount in its own namespace
// replaces the system's CA with the cluster's.
func startModOAuth2(t *testing.T, c *cluster, secure string) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	cl := c.Clients["gateway"]
	w.example(t, "apache/revoked.conf", map[string]string{
		"CLIENT_ID": url.QueryEscape(cl.ClientID), "CLIENT_SECRET": url.QueryEscape(cl.ClientSecret),
		"localhost:8481": strings.Replace(secure, "127.0.0.1", "localhost", 1),
	})
	w.writeApache(t, addr, "oauth2")
	script := fmt.Sprintf("mount -t tmpfs tmpfs /etc/ssl/certs && cp %s/ca.pem /etc/ssl/certs/ca-certificates.crt && chmod 644 /etc/ssl/certs/* && exec %s",
		w.dir, strings.Join(asNobody("apache2", "-X", "-f", w.dir+"/apache.conf"), " "))
	g := w.startWebsite(t, "Apache with mod_oauth2", addr, "unshare", "--mount", "sh", "-c", script)
	g.vague = true
	return g
}

// startOpenIDC runs Apache with deploy/examples/apache/openidc.conf, which calls the local proxy.
func startOpenIDC(t *testing.T, c *cluster, secure string) *gateway {
	t.Helper()
	w, addr := newWorkshop(t, c), freeAddress(t)
	cl := c.Clients["gateway"]
	w.example(t, "apache/openidc.conf", map[string]string{
		"CLIENT_ID": cl.ClientID, "CLIENT_SECRET": cl.ClientSecret, "/etc/revoked/": "DIR/",
		"localhost:8481": strings.Replace(secure, "127.0.0.1", "localhost", 1),
	})
	w.writeApache(t, addr, "auth_openidc")
	g := w.startWebsite(t, "Apache with mod_auth_openidc", addr,
		asNobody("apache2", "-X", "-f", filepath.Join(w.dir, "apache.conf"))...)
	g.vague = true
	return g
}

// writeApache writes apache.conf, which loads a module and includes the example.
func (w workshop) writeApache(t *testing.T, addr, module string) {
	t.Helper()
	var conf strings.Builder
	fmt.Fprintf(&conf, "ServerRoot DIR\nServerName localhost\nListen %s\nPidFile DIR/run/pid\nErrorLog DIR/run/error.log\nMutex file:DIR/run\nDocumentRoot DIR/www\n", addr)
	for _, m := range []string{"mpm_event", "authn_core", "authz_core", "authz_user", "dir", module} {
		fmt.Fprintf(&conf, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	include := "revoked.conf"
	if module == "auth_openidc" {
		include = "openidc.conf"
	}
	fmt.Fprintf(&conf, "DirectoryIndex index.html\nInclude DIR/%s\n", include)
	w.write(t, "apache.conf", conf.String())
}
