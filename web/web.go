// Package web holds the page on :9897 and serves it. The page is written in
// TypeScript (src/), built by Vite into dist/ and embedded from there, so that
// one binary carries it. The package knows files, caching and the addresses of
// the page's views, nothing else: who may see what, the content security policy
// and POST /login belong to the manager, which mounts Handler; the data come
// from the operator API, which the page reads like any other client.
//
// Without npm the folder dist/ holds only a placeholder: the module still
// compiles, and the handler then answers 503 with a sentence that says what to
// run.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed all:dist
var dist embed.FS

// NotBuilt is what the handler answers, with status 503, when the binary was
// compiled without the page.
const NotBuilt = "This binary was compiled without its page. Run `make build`, which needs Node.js, and start it again. The API answers as usual.\n"

// Assets returns the files of the built page, index.html at the root. built is
// false when the binary was compiled before the page was: then there is only a
// placeholder in it.
func Assets() (files fs.FS, built bool) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(fmt.Sprintf("BUG: no dist in the embedded files: %v", err))
	}
	_, err = fs.Stat(files, "index.html")
	return files, err == nil
}

// Pages returns the patterns, in the form of http.ServeMux, of the views that
// the page draws: all of them answer index.html and need the role viewer or
// more. src/routes.ts lists the same ones; a test compares them.
func Pages() []string {
	return []string{
		"/{$}",
		"/nodes",
		"/nodes/{id}",
		"/backends",
		"/backends/{id}",
		"/matrix",
		"/config",
		"/config/{id}",
		"/config/{id}/upload",
		"/config/{id}/diff",
		"/rollouts/{id}",
		"/traces",
		"/traces/{id}",
		"/license",
		"/tokens",
		"/events",
	}
}

// Open returns the patterns that a visitor needs before logging in: the login
// page, its style and the icon. They hold nothing of the cluster.
func Open() []string {
	return []string{"/login", "/login.css", "/favicon.svg"}
}

// Handler serves the page: files under /assets/, whose names carry a hash of
// their content, are cached for good; everything else is checked by ETag on
// each visit. GET /login is the login page, every pattern of Pages is
// index.html, other paths are 404. Only GET and HEAD are answered. It is safe
// for concurrent use.
func Handler() http.Handler {
	files, built := Assets()
	if !built {
		return http.HandlerFunc(notBuilt)
	}
	return newHandler(files)
}

func notBuilt(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, strings.TrimSuffix(NotBuilt, "\n"), http.StatusServiceUnavailable)
}

// newHandler builds the routes over files, which must hold index.html and
// login.html at the root.
func newHandler(files fs.FS) http.Handler {
	load := sync.OnceValues(func() (map[string]asset, error) { return loadAssets(files) })
	serve := func(name func(*http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			assets, err := load()
			if err != nil { // embedded files do not fail to read
				http.Error(w, "the page's files cannot be read", http.StatusInternalServerError)
				return
			}
			a, ok := assets[name(r)]
			if !ok {
				http.NotFound(w, r)
				return
			}
			a.serve(w, r)
		}
	}
	fixed := func(name string) http.HandlerFunc {
		return serve(func(*http.Request) string { return name })
	}
	mux := http.NewServeMux()
	for _, p := range Pages() {
		mux.Handle("GET "+p, fixed("index.html"))
	}
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { serveLogin(w, r, files) })
	mux.Handle("GET /", serve(func(r *http.Request) string { return strings.TrimPrefix(path.Clean(r.URL.Path), "/") }))
	return mux
}

// asset is one file, ready to be sent.
type asset struct {
	name string
	body []byte
	// zipped is nil where gzip saves nothing worth a header.
	zipped []byte
	etag   string
}

// minSaved is how many bytes compression must save before it is used: less than
// that still fills the same packet.
const minSaved = 512

// loadAssets reads and compresses all files once; the whole page is a few
// hundred kilobytes.
func loadAssets(files fs.FS) (map[string]asset, error) {
	assets := map[string]asset{}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		a := asset{name: name, body: body, etag: base64.RawURLEncoding.EncodeToString(sum[:12])}
		if z := compress(body); len(z)+minSaved < len(body) {
			a.zipped = z
		}
		assets[name] = a
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the page's files: %w", err)
	}
	return assets, nil
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	zw, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(fmt.Sprintf("BUG: gzip level: %v", err))
	}
	// Writing to a bytes.Buffer cannot fail.
	_, _ = zw.Write(body)
	_ = zw.Close()
	return b.Bytes()
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", contentType(a.name))
	h.Set("Cache-Control", cacheControl(a.name))
	body, etag := a.body, a.etag
	if a.zipped != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
			body, etag = a.zipped, a.etag+"-gzip" // another representation needs another tag
		}
	}
	h.Set("ETag", `"`+etag+`"`)
	// ServeContent answers If-None-Match, Range and HEAD. The zero time leaves
	// Last-Modified out: embedded files have none.
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(body))
}

// cacheControl tells files whose names carry a hash from those that change
// under one name.
func cacheControl(name string) string {
	if strings.HasPrefix(name, "assets/") {
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}

// contentType does not depend on the mime files of the machine for what the
// page is made of.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

// acceptsGzip reports whether an Accept-Encoding header names gzip without
// refusing it by a weight of zero.
//
// Source: RFC 9110, section 12.5.3.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		q := strings.TrimSpace(params)
		return q != "q=0" && !(strings.HasPrefix(q, "q=0.") && strings.Trim(q[4:], "0") == "")
	}
	return false
}
