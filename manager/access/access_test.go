package access

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

func open(t *testing.T, o Options) *Access {
	t.Helper()
	if o.Store == nil {
		s, err := state.OpenMemory(t.Context(), state.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		o.Store = s
	}
	if o.TokensDir == "" {
		o.TokensDir = t.TempDir()
	}
	a, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func fileToken(t *testing.T, dir, name string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(p); fi.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v; want 0600", name, fi.Mode().Perm())
	}
	return strings.TrimSpace(string(b))
}

func TestFirstTokens(t *testing.T) {
	dir := t.TempDir()
	s, err := state.OpenMemory(t.Context(), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := open(t, Options{Store: s, TokensDir: dir})
	for _, c := range []struct {
		file string
		role Role
		may  string
		not  string
	}{
		{"admin.token", Admin, "", ""},
		{"reader.token", Viewer, RightTracesRead, RightOTLPWrite},
		{"otlp.token", Nobody, RightOTLPWrite, RightTracesRead},
	} {
		p, err := a.TokenOf("Bearer " + fileToken(t, dir, c.file))
		if err != nil || p.Role != c.role {
			t.Errorf("%s: got %+v, %v; want role %v", c.file, p, err, c.role)
		}
		if c.may != "" && !p.May(Admin+1, c.may) {
			t.Errorf("%s may not %s", c.file, c.may)
		}
		if c.not != "" && p.May(Admin+1, c.not) {
			t.Errorf("%s may %s", c.file, c.not)
		}
	}
	// A second start keeps the tokens and makes no new ones.
	again := open(t, Options{Store: s, TokensDir: dir})
	if got := len(again.List()); got != 3 {
		t.Errorf("after a second start: %d tokens; want 3", got)
	}
	if _, err := again.TokenOf("Bearer " + fileToken(t, dir, "admin.token")); err != nil {
		t.Errorf("after a second start: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	a := open(t, Options{})
	closed := open(t, Options{AnonymousRole: "nobody"})
	for _, c := range []struct {
		name, peer, host string
		header           string
		want             Role
	}{
		{"loopback", "127.0.0.1:4000", "127.0.0.1:9897", "", Viewer},
		{"loopback v6", "[::1]:4000", "[::1]:9897", "", Viewer},
		{"localhost", "127.0.0.1:4000", "localhost:9897", "", Viewer},
		{"mapped", "[::ffff:127.0.0.1]:4000", "localhost", "", Viewer},
		{"rebound name", "127.0.0.1:4000", "evil.example:9897", "", Nobody},
		{"name that begins well", "127.0.0.1:4000", "127.0.0.1.evil.example", "", Nobody},
		{"other machine", "192.0.2.7:4000", "127.0.0.1:9897", "", Nobody},
		{"behind a proxy", "127.0.0.1:4000", "127.0.0.1:9897", "X-Forwarded-For", Nobody},
		{"behind another", "127.0.0.1:4000", "127.0.0.1:9897", "Forwarded", Nobody},
	} {
		r := httptest.NewRequest("GET", "/v1/cluster", nil)
		r.RemoteAddr, r.Host = c.peer, c.host
		if c.header != "" {
			r.Header.Set(c.header, "for=192.0.2.7")
		}
		if p, err := a.Who(r); err != nil || p.Role != c.want {
			t.Errorf("%s: got %v, %v; want %v", c.name, p.Role, err, c.want)
		}
		if p, _ := closed.Who(r); p.Role != Nobody {
			t.Errorf("%s with --anonymous-role nobody: got %v", c.name, p.Role)
		}
	}
	if _, err := Open(t.Context(), Options{AnonymousRole: "king"}); err == nil {
		t.Error("--anonymous-role king was taken")
	}
}

func TestTokens(t *testing.T) {
	a := open(t, Options{})
	for _, bad := range []api.NewToken{
		{Name: "", Role: "viewer"},
		{Name: "x", Role: "king"},
		{Name: "x", Role: "viewer", Rights: []string{"everything"}},
		{Name: "x", Role: "viewer", ExpiresIn: -1},
	} {
		if _, err := a.Create(t.Context(), bad); err == nil {
			t.Errorf("Create(%+v) was taken", bad)
		}
	}
	c, err := a.Create(t.Context(), api.NewToken{Name: "ci", Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	who := func(auth string) (Principal, error) {
		r.Header.Set("Authorization", auth)
		return a.Who(r)
	}
	if p, err := who("Bearer " + c.Secret); err != nil || p.Role != Operator || p.Name != "ci" {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, bad := range []string{"Bearer ", "Bearer x", "Bearer " + c.ID + ".wrong", "Basic eDp5", "Bearer " + c.Secret + "x"} {
		if p, err := who(bad); err == nil {
			t.Errorf("%q: got %+v; want an error, not an anonymous caller", bad, p)
		}
	}
	if err := a.Revoke(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := who("Bearer " + c.Secret); err == nil {
		t.Error("a revoked token was taken")
	}
	if err := a.Revoke(t.Context(), c.ID); err == nil {
		t.Error("a token was revoked twice")
	}
}

func TestLoginCodeWorksOnce(t *testing.T) {
	s, err := state.OpenMemory(t.Context(), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir := t.TempDir()
	a := open(t, Options{Store: s, TokensDir: dir})
	c := a.NewCode(Principal{Name: "admin", Role: Admin})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/login", nil)
	if err := a.LoginWithCode(w, r, c.Code); err != nil {
		t.Fatal(err)
	}
	cookies := w.Result().Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("got cookies %v; want one, HttpOnly and SameSite=Strict", cookies)
	}
	if err := a.LoginWithCode(httptest.NewRecorder(), r, c.Code); err != ErrBadCode {
		t.Errorf("the second use of a code: got %v; want ErrBadCode", err)
	}
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(cookies[0])
	if p, err := a.Who(req); err != nil || p.Role != Admin {
		t.Errorf("with the session: got %+v, %v", p, err)
	}
	// The session outlives a restart of the manager, and ends with a logout.
	b := open(t, Options{Store: s, TokensDir: dir})
	if p, err := b.Who(req); err != nil || p.Role != Admin {
		t.Errorf("after a restart: got %+v, %v", p, err)
	}
	if err := b.Logout(httptest.NewRecorder(), req); err != nil {
		t.Fatal(err)
	}
	if p, _ := b.Who(req); p.Role == Admin {
		t.Error("after the logout the session still holds")
	}
}

func TestLoginsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		c, err := a.Create(t.Context(), api.NewToken{Name: "short", Role: "admin", ExpiresIn: 60})
		if err != nil {
			t.Fatal(err)
		}
		code := a.NewCode(Principal{Role: Admin})
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		if err := a.LoginWithToken(w, r, c.Secret); err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest("GET", "/", nil)
		req.AddCookie(w.Result().Cookies()[0])

		time.Sleep(61 * time.Second)
		if _, err := a.TokenOf("Bearer " + c.Secret); err == nil {
			t.Error("an expired token was taken")
		}
		if p, _ := a.Who(req); p.Role == Admin {
			t.Error("a session outlived the token that opened it")
		}
		w = httptest.NewRecorder()
		if err := a.LoginWithCode(w, r, a.NewCode(Principal{Role: Admin}).Code); err != nil {
			t.Fatal(err)
		}
		req.Header.Del("Cookie")
		req.AddCookie(w.Result().Cookies()[0])
		time.Sleep(SessionLife - time.Second)
		if p, _ := a.Who(req); p.Role != Admin {
			t.Errorf("a session of %v ended early: %v", SessionLife, p)
		}
		time.Sleep(CodeLife)
		if err := a.LoginWithCode(httptest.NewRecorder(), r, code.Code); err != ErrBadCode {
			t.Errorf("an expired code: got %v; want ErrBadCode", err)
		}
		if p, _ := a.Who(req); p.Role == Admin {
			t.Error("an expired session was taken")
		}
	})
}

func TestLoginsAreLimited(t *testing.T) {
	a := open(t, Options{})
	r := httptest.NewRequest("POST", "/login", nil)
	r.RemoteAddr = "192.0.2.1:999"
	for i := range loginBurst {
		if err := a.LoginWithToken(httptest.NewRecorder(), r, "t.guess"); err != ErrBadToken {
			t.Fatalf("guess %d: got %v; want ErrBadToken", i, err)
		}
	}
	if err := a.LoginWithToken(httptest.NewRecorder(), r, "t.guess"); err != ErrTooManyLogins {
		t.Errorf("guess %d: got %v; want ErrTooManyLogins", loginBurst, err)
	}
	r.RemoteAddr = "192.0.2.2:999"
	if err := a.LoginWithToken(httptest.NewRecorder(), r, "t.guess"); err != ErrBadToken {
		t.Errorf("from another address: got %v; want ErrBadToken", err)
	}
	for i := range loginBurst {
		r.RemoteAddr = fmt.Sprintf("[2001:db8::%x]:999", i+1)
		if err := a.LoginWithToken(httptest.NewRecorder(), r, "t.guess"); err != ErrBadToken {
			t.Fatalf("IPv6 guess %d: got %v; want ErrBadToken", i, err)
		}
	}
	r.RemoteAddr = "[2001:db8::ffff]:999"
	if err := a.LoginWithToken(httptest.NewRecorder(), r, "t.guess"); err != ErrTooManyLogins {
		t.Errorf("from one more address of the same /64: got %v; want ErrTooManyLogins", err)
	}
}
