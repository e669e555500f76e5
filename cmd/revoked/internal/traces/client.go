package traces

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"revoked/cmd/revoked/internal/files"
)

// defaultPath is the path of a collector whose URL has none.
const defaultPath = "/v1/traces"

// ParseEndpoint reads the URL of a collector. Its errors do not contain the text, because it may
// include a password.
func ParseEndpoint(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", errors.New("want a URL such as http://127.0.0.1:4318")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("want a URL without user, query and fragment: " +
			"use a collector on this machine to add credentials")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = defaultPath
	}
	return u.String(), nil
}

// A client sends spans to one URL.
type client struct {
	endpoint string
	http     *http.Client
}

var _ otlptrace.Client = (*client)(nil)

func newClient(endpoint, caFile string) (*client, error) {
	trust, err := files.TrustCA(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the CA of the collector: %w", err)
	}
	return &client{endpoint: endpoint, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: exportLimit / 2}).DialContext,
			TLSClientConfig:     trust,
			TLSHandshakeTimeout: exportLimit / 2,
			MaxConnsPerHost:     1,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Start implements [otlptrace.Client].
func (c *client) Start(context.Context) error { return nil }

// Stop implements [otlptrace.Client].
func (c *client) Stop(context.Context) error { return nil }

func (c *client) close() { c.http.CloseIdleConnections() }

// maxAnswer bounds how much of an answer is read.
const maxAnswer = 4 << 10

// UploadTraces implements [otlptrace.Client]. A TracesData has the same encoding as a request of
// OTLP.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "revoked")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("collector answered %d", resp.StatusCode)
	}
	return nil
}
