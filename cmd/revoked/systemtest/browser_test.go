//go:build system

package systemtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	requests "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserLimit bounds each wait for a page.
const browserLimit = time.Minute

// A tab is the only tab of a new Chromium. Errors of its pages, such as violations of their content
// security policy, fail the test at its end.
type tab struct {
	t   testing.TB
	ctx context.Context

	watchers sync.WaitGroup

	mu       sync.Mutex
	problems []string
	bodies   []string // of the requests
	urls     []string
}

// openTab starts a browser that trusts the CA of the cluster.
func openTab(t testing.TB, c *cluster) *tab {
	t.Helper()
	need(t, "chromium")
	var output bytes.Buffer
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.CombinedOutput(&output), chromedp.WindowSize(1200, 900),
		chromedp.Flag("ignore-certificate-errors-spki-list", c.publicKeys(t)),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	ctx, _ = chromedp.NewContext(ctx)
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(b.close)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v\n%s", err, output.String())
	}
	watch(b, log.EntryAdded, func(e log.EventEntryAdded) {
		// An error status that a test provokes is not a fault of the page.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	})
	watch(b, runtime.ExceptionThrown, func(e runtime.EventExceptionThrown) {
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	})
	watch(b, requests.RequestWillBeSent, func(e requests.EventRequestWillBeSent) {
		b.urls = append(b.urls, e.Request.URL)
		for _, part := range e.Request.PostDataEntries {
			b.bodies = append(b.bodies, string(part.Bytes))
		}
	})
	enable := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		return err
	})
	b.do(enable)
	return b
}

// watch calls f for each event of the tab, under b.mu.
func watch[E any](b *tab, kind cdp.Event[E], f func(E)) {
	events := chromedp.Events(b.ctx, kind)
	b.watchers.Go(func() {
		for e, err := range events {
			if err != nil {
				return
			}
			b.mu.Lock()
			f(e)
			b.mu.Unlock()
		}
	})
}

// chromium returns the path of the browser.
func chromium(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// publicKeys returns the hashes of the public keys of the CA and of the APIs, in Chromium's format.
func (c *cluster) publicKeys(t testing.TB) string {
	t.Helper()
	var list []string
	files, err := filepath.Glob(filepath.Join(c.dir, "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		list = append(list, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return strings.Join(list, ",")
}

// close closes the browser. It fails the test if a page had a problem.
func (b *tab) close() {
	if err := chromedp.Cancel(b.ctx); err != nil {
		b.t.Errorf("close the browser: %v", err)
	}
	b.watchers.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the console of the browser: %s", p)
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.shoot("failed")
		b.t.Fatalf("browser: %v", err)
	}
}

// open loads a page.
func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// eval evaluates a JavaScript expression in the page and returns its value.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %.60s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true, even if other pages are loaded before that.
func (b *tab) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.shoot("failed")
			b.t.Fatalf("wait for %s: got the page %q", expression, eval[string](b, "document.body.innerText"))
		}
	}
}

// titled waits for a page with a heading.
func (b *tab) titled(heading string) {
	b.t.Helper()
	b.until("document.readyState === 'complete' && document.querySelector('h1')?.textContent === '" + heading + "'")
}

// text waits for a page that shows a text.
func (b *tab) text(text string) {
	b.t.Helper()
	b.until("document.readyState === 'complete' && document.body.innerText.includes('" + text + "')")
}

// fill types into a field of a form. submit sends the form.
func (b *tab) fill(field, value string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(field, value))
}

func (b *tab) submit(form string) {
	b.t.Helper()
	b.do(chromedp.Click(form + " button"))
}

// keys presses keys, one after the other.
func (b *tab) keys(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// resize changes the size of the page, and sets dark or light colors.
func (b *tab) resize(width, height int64, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// first runs a script in each page before the scripts of the page.
func (b *tab) first(script string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument,
			page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		return err
	}))
}

// noScripts turns JavaScript off, for the pages that are loaded from then on.
func (b *tab) noScripts(off bool) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled,
			emulation.SetScriptExecutionDisabledParams{Value: off})
		return err
	}))
}

// shoot writes a picture of the whole page to the directory REVOKED_SCREENSHOTS, if that variable
// is set.
func (b *tab) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("REVOKED_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600)
	}
	if err != nil {
		b.t.Errorf("picture %s: %v", name, err)
	}
}

// sent returns the addresses and the bodies of all requests so far.
func (b *tab) sent() (urls, bodies string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.urls, "\n"), strings.Join(b.bodies, "\n")
}
