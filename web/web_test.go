package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// bundle stands in for the built page.
func bundle() fstest.MapFS {
	return fstest.MapFS{
		"index.html":          {Data: []byte("<!doctype html><title>Binnacle</title>")},
		"login.html":          {Data: []byte("<p>in</p>" + markNote + "<form>" + markNext + "</form>")},
		"login.css":           {Data: []byte("body{}")},
		"favicon.svg":         {Data: []byte("<svg/>")},
		"assets/index-abc.js": {Data: []byte(strings.Repeat("let calm = true;\n", 400))},
		".keep":               {},
	}
}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandler(t *testing.T) {
	h := newHandler(bundle())
	const immutable = "public, max-age=31536000, immutable"
	for _, tt := range []struct {
		name, method, path string
		status             int
		contentType, cache string
	}{
		{"the page", "GET", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"a view", "GET", "/nodes", 200, "text/html; charset=utf-8", "no-cache"},
		{"a view of one thing", "GET", "/backends/billing%3A8080", 200, "text/html; charset=utf-8", "no-cache"},
		{"a hashed file", "GET", "/assets/index-abc.js", 200, "text/javascript; charset=utf-8", immutable},
		{"an open file", "GET", "/login.css", 200, "text/css; charset=utf-8", "no-cache"},
		{"the icon", "GET", "/favicon.svg", 200, "image/svg+xml", "no-cache"},
		{"the login page", "GET", "/login", 200, "text/html; charset=utf-8", "no-store"},
		{"HEAD", "HEAD", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"no such file", "GET", "/assets/index-old.js", 404, "text/plain; charset=utf-8", ""},
		{"no such view", "GET", "/nope", 404, "text/plain; charset=utf-8", ""},
		{"an API path is never the page", "GET", "/v1/nope", 404, "text/plain; charset=utf-8", ""},
		{"the placeholder is not served", "GET", "/.keep", 404, "text/plain; charset=utf-8", ""},
		{"a folder", "GET", "/assets/", 404, "text/plain; charset=utf-8", ""},
		{"another method", "POST", "/", 405, "text/plain; charset=utf-8", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := get(t, h, tt.method, tt.path)
			if res.StatusCode != tt.status {
				t.Errorf("%s %s: status %d; want %d", tt.method, tt.path, res.StatusCode, tt.status)
			}
			if got := res.Header.Get("Content-Type"); got != tt.contentType {
				t.Errorf("%s %s: Content-Type %q; want %q", tt.method, tt.path, got, tt.contentType)
			}
			if got := res.Header.Get("Cache-Control"); got != tt.cache {
				t.Errorf("%s %s: Cache-Control %q; want %q", tt.method, tt.path, got, tt.cache)
			}
		})
	}
}

func TestCompressionAndTags(t *testing.T) {
	h := newHandler(bundle())
	want := string(bundle()["assets/index-abc.js"].Data)

	plain := get(t, h, "GET", "/assets/index-abc.js")
	if got := body(t, plain); got != want {
		t.Errorf("plain body has %d bytes; want %d", len(got), len(want))
	}
	zipped := get(t, h, "GET", "/assets/index-abc.js", "Accept-Encoding", "br, gzip;q=0.8")
	if got := zipped.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding %q; want gzip", got)
	}
	zr, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(zr)
	if err != nil || string(got) != want {
		t.Errorf("unzipped body has %d bytes, %v; want %d", len(got), err, len(want))
	}
	if plain.Header.Get("ETag") == zipped.Header.Get("ETag") {
		t.Errorf("both representations have the tag %s; want two", plain.Header.Get("ETag"))
	}
	if v := zipped.Header.Get("Vary"); v != "Accept-Encoding" {
		t.Errorf("Vary %q; want Accept-Encoding", v)
	}
	again := get(t, h, "GET", "/", "If-None-Match", get(t, h, "GET", "/").Header.Get("ETag"))
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("a known tag: status %d; want 304", again.StatusCode)
	}
}

func TestAcceptsGzip(t *testing.T) {
	f := func(header string, want bool) {
		t.Helper()
		if got := acceptsGzip(header); got != want {
			t.Errorf("acceptsGzip(%q): got %v; want %v", header, got, want)
		}
	}
	f("", false)
	f("gzip", true)
	f("br, GZIP", true)
	f("gzip;q=0", false)
	f("gzip; q=0.000", false)
	f("gzip;q=0.001", true)
	f("xgzip", false)
	f("identity;q=1, *;q=0", false)
}

func TestLoginPage(t *testing.T) {
	h := newHandler(bundle())
	f := func(query string, want, not string) {
		t.Helper()
		got := body(t, get(t, h, "GET", "/login"+query))
		if !strings.Contains(got, want) {
			t.Errorf("/login%s: got %s; want %s in it", query, got, want)
		}
		if not != "" && strings.Contains(got, not) {
			t.Errorf("/login%s: got %s; want no %s in it", query, got, not)
		}
	}
	f("", "<p>in</p><form></form>", "alert")
	f("?error=token", "was not accepted", "<!--")
	f("?error=limit", "Wait a minute", "")
	f("?error=code", "one-time link", "")
	f("?error=ended", "session has ended", "")
	f("?error=%3Cb%3E", "<form>", "<b>")
	f("?next=/nodes%3Fw=1h%26q=x", `name="next" value="/nodes?w=1h&amp;q=x"`, "")
	f("?next=%22%3E%3Cscript%3E", "&#34;&gt;&lt;script&gt;", "<script>")
}

func TestNotBuilt(t *testing.T) {
	res := get(t, http.HandlerFunc(notBuilt), "GET", "/")
	if got := body(t, res); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got, "make build") {
		t.Errorf("got %d %q; want 503 and what to run", res.StatusCode, got)
	}
}

// TestPagesAreRoutes compares the views that the server answers with those that
// the page draws: a view that only one of them knows breaks on reload.
func TestPagesAreRoutes(t *testing.T) {
	src, err := os.ReadFile("src/routes.ts")
	if err != nil {
		t.Fatal(err)
	}
	var drawn []string
	for _, m := range regexp.MustCompile(`\{ pattern: "([^"]+)", page: `).FindAllStringSubmatch(string(src), -1) {
		drawn = append(drawn, m[1])
	}
	if want := Pages(); !slices.Equal(drawn, want) {
		t.Errorf("src/routes.ts draws %q; Pages() answers %q", drawn, want)
	}
}

// TestBuiltPage holds the built page to the content security policy: nothing
// inline, nothing from elsewhere, and the marks of the login page in place.
func TestBuiltPage(t *testing.T) {
	files, built := Assets()
	if !built {
		t.Skip("the page is not built: run `make web`")
	}
	read := func(name string) string {
		f, err := files.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bad := regexp.MustCompile(`(?i)<style|\sstyle=|<script(?:\s[^>]*)?>[^<]|\son[a-z]+=|(?:src|href)="(?:https?:)?//|data:`)
	for _, name := range []string{"index.html", "login.html"} {
		if m := bad.FindString(read(name)); m != "" {
			t.Errorf("%s holds %q, which the content security policy refuses", name, m)
		}
	}
	login := read("login.html")
	if strings.Contains(login, "<script") {
		t.Error("login.html holds a script; its style sheet is all that is open beside it")
	}
	for _, mark := range []string{markNote, markNext} {
		if strings.Count(login, mark) != 1 {
			t.Errorf("login.html holds %s %d times; want once", mark, strings.Count(login, mark))
		}
	}
}
