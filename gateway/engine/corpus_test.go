package engine

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	revokerclient "github.com/krakend/bloomfilter/v2/rpc/client"
)

// A scenario stands beside a configuration of testdata/corpus: requests, in
// turn, and what is expected of them.
type scenario struct {
	About    string
	Requests []struct {
		Note    string
		Method  string // GET unless told otherwise
		Path    string
		Host    string
		Headers map[string]string
		Body    string
		// Token holds claims; "@header" names another header than
		// Authorization, "@alg" another algorithm than HS256.
		Token map[string]any
		// Revoke is revoked before the request.
		Revoke string
		Times  int // 0 is once
		Want   struct {
			Status   int
			JSON     any
			Text     string
			Contains string
			Headers  map[string]string
			// Calls counts the requests of a backend's path so far.
			Calls map[string]int
		}
	}
}

// TestCorpus runs every configuration of the corpus against real backends.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.requests.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 30 {
		t.Errorf("the corpus has %d configurations; want at least 30", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".requests.json")
		t.Run(name, func(t *testing.T) { runScenario(t, name) })
	}
}

// Every supported namespace stands in the corpus, by one of its names.
func TestCorpusCoversTheTable(t *testing.T) {
	all := bytes.Join(corpusConfigs(t), nil)
	for _, n := range namespaces {
		if n.support == supported && n.name != "backend/http/client" && !bytes.Contains(all, []byte(`"`+n.name+`"`)) {
			t.Errorf("no configuration of the corpus has %s", n.name)
		}
	}
}

// corpusConfigs returns the configurations as they are in their files.
func corpusConfigs(t testing.TB) (configs [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".requests.json") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		configs = append(configs, b)
	}
	return configs
}

func runScenario(t *testing.T, name string) {
	var s scenario
	readJSON(t, "testdata/corpus/"+name+".requests.json", &s)
	raw, err := os.ReadFile("testdata/corpus/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	// A check knows neither files nor addresses, and takes it.
	if faults := Check(t.Context(), raw); len(faults) > 0 {
		t.Errorf("Check: %v", faults)
	}
	backend := newCorpusBackend(t)
	revokerPort := freePort(t)
	raw = []byte(strings.NewReplacer(
		"http://backend", backend.URL, "${DIR}", absolute(t, "testdata"), "${GELF}", gelfReceiver(t),
		"${MD5}", md5Of(t, "testdata/lua/double.lua"), `"port": 0`, fmt.Sprintf(`"port": %d`, revokerPort),
	).Replace(string(raw)))
	e := newEngine(t, raw)
	gateway := httptest.NewServer(e.Handler())
	defer gateway.Close()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	for i, r := range s.Requests {
		what := fmt.Sprintf("request %d (%s %s)", i+1, cmp.Or(r.Method, "GET"), r.Path)
		if r.Revoke != "" {
			revoke(t, revokerPort, r.Revoke)
		}
		for range max(r.Times, 1) {
			req, err := http.NewRequest(cmp.Or(r.Method, "GET"), gateway.URL+r.Path, strings.NewReader(r.Body))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = r.Host
			for k, v := range r.Headers {
				req.Header.Set(k, v)
			}
			if r.Token != nil {
				setToken(t, req, r.Token)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != r.Want.Status {
				t.Errorf("%s: status %d with %q; want %d", what, resp.StatusCode, body, r.Want.Status)
			}
			if r.Want.JSON != nil {
				var got any
				if err := json.Unmarshal(body, &got); err != nil || !reflect.DeepEqual(got, r.Want.JSON) {
					t.Errorf("%s: got %s; want %v", what, body, r.Want.JSON)
				}
			}
			if r.Want.Text != "" && string(body) != r.Want.Text {
				t.Errorf("%s: got %q; want %q", what, body, r.Want.Text)
			}
			if !strings.Contains(string(body), r.Want.Contains) {
				t.Errorf("%s: got %q; want it to contain %q", what, body, r.Want.Contains)
			}
			for k, v := range r.Want.Headers {
				if got := resp.Header.Get(k); got != v {
					t.Errorf("%s: header %s is %q; want %q", what, k, got, v)
				}
			}
		}
		for path, n := range r.Want.Calls {
			if got := backend.calls(path, n); got != n {
				t.Errorf("%s: backend path %s had %d requests so far; want %d", what, path, got, n)
			}
		}
	}
}

func readJSON(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func md5Of(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", md5.Sum(b))
}

// gelfReceiver returns the address of a UDP socket that nobody reads.
func gelfReceiver(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// revoke calls the RPC as KrakenD's client does.
func revoke(t *testing.T, port int, elem string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		c, err := revokerclient.New(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			defer c.Close()
			if err := c.Add([]byte(elem)); err != nil {
				t.Fatalf("revoke %s: %v", elem, err)
			}
			if ok, err := c.Check([]byte(elem)); err != nil || !ok {
				t.Fatalf("check of the revoked %s: %v, %v", elem, ok, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the revoker does not listen: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var corpusKey, corpusEdKey = []byte("corpus-key-of-32-bytes-and-a-few"), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

func setToken(t *testing.T, req *http.Request, claims map[string]any) {
	t.Helper()
	claims = maps.Clone(claims)
	header, prefix := "Authorization", "Bearer "
	if h, ok := claims["@header"].(string); ok {
		header = h
	}
	var method jwt.SigningMethod = jwt.SigningMethodHS256
	var key any = corpusKey
	if claims["@alg"] == "EdDSA" {
		method, key = jwt.SigningMethodEdDSA, corpusEdKey
	}
	delete(claims, "@header")
	delete(claims, "@alg")
	if _, ok := claims["exp"]; !ok {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
	}
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	token.Header["kid"] = "corpus"
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(header, prefix+signed)
}

// corpusBackend is all backends of the corpus. It counts requests by path.
type corpusBackend struct {
	*httptest.Server
	mu     sync.Mutex
	counts map[string]int
}

// calls returns the count of path, which may take a moment to reach n: nobody
// waits for a shadow.
func (b *corpusBackend) calls(path string, n int) int {
	deadline := time.Now().Add(2 * time.Second)
	for {
		b.mu.Lock()
		got := b.counts[path]
		b.mu.Unlock()
		if got >= n || time.Now().After(deadline) {
			return got
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newCorpusBackend(t *testing.T) *corpusBackend {
	b := &corpusBackend{counts: map[string]int{}}
	mux := http.NewServeMux()
	doc := func(pattern, contentType, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		})
	}
	doc("/users/{id}", "application/json", `{"id": 7, "name": "Ada", "address": {"city": "London", "zip": "N1"}}`)
	doc("/orders/{id}", "application/json", `{"orders": [1, 2], "total": 3}`)
	doc("/list", "application/json", `[{"a": 1}, {"a": 2}]`)
	doc("/text", "text/plain", "plain words")
	doc("/xml", "application/xml", `<user id="7"><name>Ada</name><tag>a</tag><tag>b</tag></user>`)
	doc("/rss", "application/rss+xml", `<?xml version="1.0"?><rss version="2.0"><channel><title>Tides</title><item><title>high water</title><link>https://tides.example/1</link></item></channel></rss>`)
	doc("/tokens", "application/json", `{"access": {"sub": "ada"}, "refresh": {"sub": "ada"}, "expires": 60}`)
	keys, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	doc("/jwks", "application/json", string(keys))
	doc("/jwks-eddsa", "application/json", `{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "corpus", "alg": "EdDSA", "x": "`+
		base64.RawURLEncoding.EncodeToString(corpusEdKey.Public().(ed25519.PublicKey))+`"}]}`)
	mux.HandleFunc("/echo/", echo)
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.Header().Set("X-Backend", "yes")
		http.Error(w, fmt.Sprintf("status %d", code), code)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/graphql", func(w http.ResponseWriter, r *http.Request) {
		var q map[string]any
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		delete(q, "query")
		json.NewEncoder(w).Encode(q)
	})
	mux.HandleFunc("/count/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, `{"n": %d}`, b.calls(r.URL.Path, 0))
	})
	mux.HandleFunc("/fresh/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, `{"n": 0}`)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "gateway" || secret != "s3cret" || r.FormValue("scope") != "read write" || r.FormValue("audience") != "corpus" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token": "T1", "token_type": "Bearer", "expires_in": 3600}`)
	})
	private := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer T1" {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, `{"secret": 42}`)
	}
	mux.HandleFunc("/private", private)
	mux.HandleFunc("/private/cached", private)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.counts[r.URL.Path]++
		b.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	query := strings.Split(r.URL.RawQuery, "&")
	slices.Sort(query)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{
		"method": r.Method, "path": r.URL.Path, "query": strings.Join(query, "&"), "body": string(body),
		"x-one": r.Header.Get("X-One"), "x-two": r.Header.Get("X-Two"), "authorization": r.Header.Get("Authorization"),
	})
}
