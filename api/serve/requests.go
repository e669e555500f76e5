package serve

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// A requestTable bounds the requests in progress: all of them, and those of one address. A request
// occupies a slot from the end of its header to the end of its answer, even while its body is
// missing.
type requestTable struct {
	limit, perAddress int
	exempt            []netip.Prefix // addresses without a limit of their own

	mu     sync.Mutex
	n      int
	byAddr map[netip.Addr]int
}

// enter counts a request. It returns the cause of a refusal, or "". A refused request is not
// counted. Call leave at the end of every other request.
func (t *requestTable) enter(addr netip.Addr) (cause string) {
	counted := addr.IsValid() && !within(t.exempt, addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case counted && t.byAddr[addr] >= t.perAddress:
		return causeAddressRequests
	case t.n >= t.limit:
		return causeRequests
	}
	t.n++
	t.byAddr[addr]++
	return ""
}

// leave ends a request that enter has admitted. An address without requests costs no memory.
func (t *requestTable) leave(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.byAddr[addr]--; t.byAddr[addr] == 0 {
		delete(t.byAddr, addr)
	}
}

func (t *requestTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// limitedAddr returns the address whose limit counts a request: the address of the connection, or
// behind a trusted proxy the address of the caller.
func (t *requestTable) limitedAddr(of netip.Addr, r *http.Request) netip.Addr {
	if !within(t.exempt, of) {
		return of
	}
	if caller := CallerAddr(r, t.exempt); caller.IsValid() {
		return addressKey(caller)
	}
	return of
}

// CallerAddr returns the address of the caller of r, or the zero address if it is unknown. It uses
// X-Forwarded-For only from a trusted proxy: the last address that is not a trusted proxy itself.
// An entry that is not an address ends the search, because its sender cannot be known.
func CallerAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(n netip.Prefix) bool { return n.Contains(a) })
	}
	addr := peer.Addr().Unmap().WithZone("")
	if !isTrusted(addr) {
		return addr
	}
	entries := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, entry := range slices.Backward(entries) {
		next, ok := forwardedAddr(strings.TrimSpace(entry))
		if !ok {
			break
		}
		if addr = next; !isTrusted(addr) {
			break
		}
	}
	return addr
}

// forwardedAddr parses an entry of X-Forwarded-For. Proxies write an address alone, in brackets
// (IPv6), or with the port of the connection.
func forwardedAddr(s string) (netip.Addr, bool) {
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(s)
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), err == nil
}
