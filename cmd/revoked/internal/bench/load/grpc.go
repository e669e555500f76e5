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

// grpcAnswer returns status and body of the answer of a unary call, whose body has been read. The
// status is 200 only for the gRPC status OK; for any other the body is its message.
func grpcAnswer(resp *http.Response, body []byte) (int, []byte) {
	get := func(name string) string { return cmp.Or(resp.Trailer.Get(name), resp.Header.Get(name)) }
	if code := get("Grpc-Status"); resp.StatusCode != http.StatusOK || code != "0" {
		return http.StatusBadGateway, []byte("gRPC status " + code + ": " + get("Grpc-Message"))
	}
	return http.StatusOK, body
}
