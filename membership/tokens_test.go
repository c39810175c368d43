package membership

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

func newTokens(t testing.TB, store *state.Store, a *pki.Authority) *Tokens {
	t.Helper()
	tokens, err := OpenTokens(TokensOptions{Store: store, Fingerprint: a.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// wantProblem fails unless err is an *api.Problem with that status.
func wantProblem(t testing.TB, err error, status int) *api.Problem {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != status {
		t.Fatalf("got %v; want a problem with status %d", err, status)
	}
	if p.Title == "" || p.Detail == "" {
		t.Errorf("problem %+v lacks its title or detail", p)
	}
	return p
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store, a := t.Context(), statetest.Memory(t), newAuthority(t)
		tokens := newTokens(t, store, a)
		made, err := tokens.Create(ctx, api.NewToken{Kind: KindJoin, Name: "ci", Group: "edge", ExpiresIn: 3600, UsesMax: 2})
		if err != nil {
			t.Fatal(err)
		}
		jt, err := ParseJoinToken(" " + made.Secret + "\n")
		if err != nil || jt.ID != made.ID || jt.Fingerprint != a.Fingerprint() {
			t.Fatalf("ParseJoinToken: %v, %v", jt.ID, err)
		}
		if kv, err := store.Get(ctx, prefixTokens+made.ID); err != nil || strings.Contains(string(kv.Value), jt.Secret) {
			t.Errorf("the store holds the secret, or nothing: %v", err)
		}
		if list, err := tokens.List(ctx); err != nil || len(list) != 1 || list[0].ID != made.ID || list[0].Group != "edge" || list[0].UsesMax != 2 {
			t.Errorf("List: got %+v, %v", list, err)
		}

		if _, err := tokens.check(ctx, jt.ID, jt.Secret, time.Now()); err != nil {
			t.Errorf("the right secret: %v", err)
		}
		wrong := strings.Repeat("A", secretLen)
		unknown := wantProblem(t, second(tokens.check(ctx, "j-none", jt.Secret, time.Now())), 401)
		bad := wantProblem(t, second(tokens.check(ctx, jt.ID, wrong, time.Now())), 401)
		if unknown.Detail != bad.Detail {
			t.Errorf("a wrong secret answers %q, an unknown token %q; want no difference", bad.Detail, unknown.Detail)
		}
		wantProblem(t, second(tokens.check(ctx, "../nodes/x", jt.Secret, time.Now())), 401)

		time.Sleep(time.Hour)
		wantProblem(t, second(tokens.check(ctx, jt.ID, jt.Secret, time.Now())), 401)

		if err := tokens.Revoke(ctx, made.ID); err != nil {
			t.Errorf("Revoke: %v", err)
		}
		wantProblem(t, tokens.Revoke(ctx, made.ID), 404)
		wantProblem(t, tokens.Revoke(ctx, "../x"), 404)
		wantProblem(t, second(tokens.check(ctx, jt.ID, jt.Secret, time.Now())), 401)
	})
}

func second[A any](_ A, err error) error { return err }

func TestTokensThatCannotBeMade(t *testing.T) {
	tokens := newTokens(t, statetest.Memory(t), newAuthority(t))
	nan := 0.0
	nan /= nan
	for _, n := range []api.NewToken{
		{},
		{Kind: "api", Role: "admin"},
		{Kind: KindJoin, Role: "admin"},
		{Kind: KindJoin, Rights: []string{"traces:read"}},
		{Kind: KindJoin, Group: "Not A Name"},
		{Kind: KindJoin, UsesMax: -1},
		{Kind: KindJoin, ExpiresIn: -1},
		{Kind: KindJoin, ExpiresIn: 1e300},
		{Kind: KindJoin, ExpiresIn: nan},
		{Kind: KindJoin, Name: strings.Repeat("x", 101)},
	} {
		_, err := tokens.Create(t.Context(), n)
		wantProblem(t, err, 400)
	}
}

func TestTokenFileOfFirstStart(t *testing.T) {
	ctx := t.Context()
	tokens := newTokens(t, statetest.Memory(t), newAuthority(t))
	path := filepath.Join(t.TempDir(), "tokens", "join.token")
	for range 2 {
		if err := tokens.EnsureFile(ctx, path); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	jt, err := ParseJoinToken(string(b))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.check(ctx, jt.ID, jt.Secret, time.Now()); err != nil {
		t.Errorf("the token of the file: %v", err)
	}
	if list, err := tokens.List(ctx); err != nil || len(list) != 1 {
		t.Errorf("%d tokens after two starts, %v; want 1", len(list), err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", fi.Mode(), err)
	}
}

func TestParseJoinToken(t *testing.T) {
	good := "j-0123456789." + strings.Repeat("s", secretLen) + "." + strings.Repeat("ab", 32)
	if jt, err := ParseJoinToken(good); err != nil || jt.String() != good {
		t.Errorf("ParseJoinToken(good): got %v, %v", jt, err)
	}
	for _, bad := range []string{
		"", "  \n", "j-1", "a.b", "a.b.c", good + "x", good[:len(good)-1], good + ".x", "J" + good, "." + good,
		strings.Repeat("x", 300), strings.Replace(good, "s", "!", 1),
	} {
		_, err := ParseJoinToken(bad)
		if err == nil || strings.Contains(err.Error(), strings.Repeat("s", 20)) {
			t.Errorf("ParseJoinToken(%q): got %v; want an error without the secret", bad, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add("j-0123456789." + strings.Repeat("s", secretLen) + "." + strings.Repeat("ab", 32))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		jt, err := ParseJoinToken(s)
		if err == nil && jt.String() != strings.TrimSpace(s) {
			t.Fatalf("ParseJoinToken(%q): got %q back", s, jt.String())
		}
	})
}
