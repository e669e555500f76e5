package load

import (
	"cmp"
	"net"
	"net/http"
	"time"
)

// grpcClient returns a client for one connection of HTTP/2 without TLS.
func grpcClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{
		Timeout: requestTime,
		Transport: &http.Transport{
			Protocols: protocols, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		},
	}
}

// grpcAnswer returns 200 and body, the body of resp, if a unary call succeeded. Otherwise it
// returns 502 and a text with the gRPC status and its message.
func grpcAnswer(resp *http.Response, body []byte) (int, []byte) {
	get := func(name string) string { return cmp.Or(resp.Trailer.Get(name), resp.Header.Get(name)) }
	if code := get("Grpc-Status"); resp.StatusCode != http.StatusOK || code != "0" {
		return http.StatusBadGateway, []byte("gRPC status " + code + ": " + get("Grpc-Message"))
	}
	return http.StatusOK, body
}
