package access

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// byToken returns who holds the token "id.secret", and when it ends; zero for
// never.
func (a *Access) byToken(s string) (p Principal, expires time.Time, ok bool) {
	id, secret, ok := strings.Cut(s, ".")
	if !ok {
		return Principal{}, time.Time{}, false
	}
	a.mu.Lock()
	t, ok := a.tokens[id]
	a.mu.Unlock()
	if !ok || subtle.ConstantTimeCompare([]byte(hash(secret)), []byte(t.Hash)) != 1 {
		return Principal{}, time.Time{}, false
	}
	if !t.Expires.IsZero() && time.Now().After(t.Expires) {
		return Principal{}, time.Time{}, false
	}
	role, err := ParseRole(t.Role)
	if err != nil {
		return Principal{}, time.Time{}, false
	}
	return Principal{Name: t.Name, Role: role, Rights: t.Rights}, t.Expires, true
}

// Who returns who a request comes from: its bearer token, else its session
// cookie, else an anonymous caller.
func (a *Access) Who(r *http.Request) (Principal, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		t, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			return Principal{}, fmt.Errorf("%w: want Authorization: Bearer TOKEN", ErrBadToken)
		}
		p, _, ok := a.byToken(strings.TrimSpace(t))
		if !ok {
			return Principal{}, ErrBadToken
		}
		return p, nil
	}
	if c, err := r.Cookie(cookieName); err == nil {
		a.mu.Lock()
		s, ok := a.sessions[hash(c.Value)]
		a.mu.Unlock()
		if ok && time.Now().Before(s.Expires) {
			return s.Principal, nil
		}
	}
	return Principal{Name: "anonymous", Role: a.anonymousRole(r)}, nil
}

// TokenOf returns the principal of a bare bearer token, for gRPC metadata.
func (a *Access) TokenOf(authorization string) (Principal, error) {
	t, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return Principal{}, fmt.Errorf("%w: want authorization: Bearer TOKEN", ErrBadToken)
	}
	if p, _, ok := a.byToken(strings.TrimSpace(t)); ok {
		return p, nil
	}
	return Principal{}, ErrBadToken
}

func (a *Access) anonymousRole(r *http.Request) Role {
	if a.anonymous != nil {
		return *a.anonymous
	}
	if isLocal(r) {
		return Viewer
	}
	return Nobody
}

// isLocal reports whether a request was made on this machine: from a loopback
// peer, to a local Host, and not passed on by a proxy. The Host keeps a page of
// another site, whose name was rebound to 127.0.0.1, from reading along.
func isLocal(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// ErrBadToken is returned by Who for a bearer token that is unknown, revoked or
// expired: such a caller is not taken for anonymous, so that it hears of it.
var ErrBadToken = errors.New("the bearer token is unknown, revoked or expired")
