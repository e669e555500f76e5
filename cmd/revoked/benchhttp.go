package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"
)

// An httpSender sends the template by net/http's client, as a resource server in Go does. Its
// transport holds one connection.
type httpSender struct {
	client   *http.Client
	template *http.Request
	bodyAt   int
	answer   []byte
	version  uint16
	suite    uint16
}

// dialHTTP opens the connection with a handshake, by a request that no measure counts.
func dialHTTP(ctx context.Context, addr string, cfg *tls.Config, t requestTemplate) (*httpSender, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(t.bytes)))
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	req.RequestURI = ""
	req.URL.Scheme, req.URL.Host = "https", addr
	s := &httpSender{
		client: &http.Client{
			Timeout: rawTimeout,
			Transport: &http.Transport{
				TLSClientConfig: cfg, MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
				DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		template: req,
		bodyAt:   t.body,
	}
	hello, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/livez", nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(hello)
	if err != nil {
		s.close()
		return nil, err
	}
	defer resp.Body.Close()
	s.version, s.suite = resp.TLS.Version, resp.TLS.CipherSuite
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRawAnswer))
	return s, err
}

func (s *httpSender) do(request []byte) (int, []byte, error) {
	body := request[s.bodyAt:]
	req := &http.Request{
		Method: s.template.Method, URL: s.template.URL, Host: s.template.Host, Header: s.template.Header,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.ContentLength < 0 || resp.ContentLength > maxRawAnswer {
		return 0, nil, fmt.Errorf("status %d with a body of no usable Content-Length", resp.StatusCode)
	}
	n := int(resp.ContentLength)
	if cap(s.answer) < n {
		s.answer = make([]byte, n)
	}
	s.answer = s.answer[:n]
	_, err = io.ReadFull(resp.Body, s.answer)
	return resp.StatusCode, s.answer, err
}

// spent is never true: the transport opens a new connection where it must.
func (s *httpSender) spent(error) bool { return false }

func (s *httpSender) agreed() (version, suite uint16) { return s.version, s.suite }

func (s *httpSender) close() { s.client.CloseIdleConnections() }
