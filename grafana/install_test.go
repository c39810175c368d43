package grafana

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// double answers as Grafana's documentation says of the calls that Install
// makes. It is no Grafana: that was not at hand.
type double struct {
	mu         sync.Mutex
	sources    map[string]dataSource
	folders    map[string]bool
	dashboards map[string]string // uid to folder
	healthy    bool
	calls      []string
}

func (g *double) handler() http.Handler {
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	message := func(s string) map[string]string { return map[string]string{"message": s} }
	read := func(w http.ResponseWriter, r *http.Request, v any) bool {
		if err := json.NewDecoder(r.Body).Decode(v); err != nil {
			say(w, 400, message("bad request data"))
			return false
		}
		return true
	}
	mux.HandleFunc("GET /api/datasources/uid/{uid}", func(w http.ResponseWriter, r *http.Request) {
		d, ok := g.sources[r.PathValue("uid")]
		if !ok {
			say(w, 404, message("Data source not found"))
			return
		}
		d.SecureJSONData = nil // Grafana never gives them back
		say(w, 200, d)
	})
	mux.HandleFunc("POST /api/datasources", func(w http.ResponseWriter, r *http.Request) {
		var d dataSource
		if !read(w, r, &d) {
			return
		}
		for _, have := range g.sources {
			if have.Name == d.Name || have.UID == d.UID {
				say(w, 409, message("data source with the same name already exists"))
				return
			}
		}
		g.sources[d.UID] = d
		say(w, 200, map[string]any{"message": "Datasource added", "datasource": d})
	})
	mux.HandleFunc("PUT /api/datasources/uid/{uid}", func(w http.ResponseWriter, r *http.Request) {
		var d dataSource
		if !read(w, r, &d) {
			return
		}
		old := g.sources[r.PathValue("uid")]
		if d.SecureJSONData == nil {
			d.SecureJSONData = old.SecureJSONData
		}
		g.sources[r.PathValue("uid")] = d
		say(w, 200, message("Datasource updated"))
	})
	mux.HandleFunc("GET /api/datasources/uid/{uid}/health", func(w http.ResponseWriter, _ *http.Request) {
		if !g.healthy {
			say(w, 400, map[string]string{"status": "ERROR", "message": "connection refused"})
			return
		}
		say(w, 200, map[string]string{"status": "OK", "message": "Successfully queried the Prometheus API."})
	})
	mux.HandleFunc("GET /api/folders/{uid}", func(w http.ResponseWriter, r *http.Request) {
		if !g.folders[r.PathValue("uid")] {
			say(w, 404, message("folder not found"))
			return
		}
		say(w, 200, map[string]string{"uid": r.PathValue("uid")})
	})
	mux.HandleFunc("POST /api/folders", func(w http.ResponseWriter, r *http.Request) {
		var f struct{ UID, Title string }
		if read(w, r, &f) {
			g.folders[f.UID] = true
			say(w, 200, f)
		}
	})
	mux.HandleFunc("POST /api/dashboards/db", func(w http.ResponseWriter, r *http.Request) {
		var d struct {
			Dashboard struct {
				UID, Title string
				Panels     []any
			}
			FolderUID string
			Overwrite bool
		}
		if !read(w, r, &d) {
			return
		}
		if _, exists := g.dashboards[d.Dashboard.UID]; exists && !d.Overwrite {
			say(w, 412, map[string]string{"message": "The dashboard has been changed by someone else", "status": "version-mismatch"})
			return
		}
		if d.Dashboard.Title == "" || !g.folders[d.FolderUID] || len(d.Dashboard.UID) > 40 {
			say(w, 400, message("Dashboard title cannot be empty, or its folder is not there"))
			return
		}
		g.dashboards[d.Dashboard.UID] = d.FolderUID
		say(w, 200, map[string]any{"uid": d.Dashboard.UID, "url": "/d/" + d.Dashboard.UID, "status": "success"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.calls = append(g.calls, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "Bearer glsa_secret" {
			say(w, 401, message("Invalid API key"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func TestInstall(t *testing.T) {
	g := &double{sources: map[string]dataSource{}, folders: map[string]bool{}, dashboards: map[string]string{}, healthy: true}
	srv := httptest.NewServer(g.handler())
	defer srv.Close()
	var said []string
	in := Installer{
		URL: srv.URL + "/", Token: "glsa_secret", ManagerURL: "http://manager:9897", ReaderToken: "reader",
		Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	}
	if err := in.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(g.dashboards) != len(Dashboards()) || len(g.sources) != 2 || !g.folders[FolderUID] {
		t.Errorf("installed %d dashboards, %d sources, folders %v; want %d, 2 and %s", len(g.dashboards), len(g.sources), g.folders, len(Dashboards()), FolderUID)
	}
	if d := g.sources[MetricsUID]; d.URL != "http://manager:9897/prometheus" || d.SecureJSONData["httpHeaderValue1"] != "Bearer reader" {
		t.Errorf("metrics source %+v", d)
	}
	if len(said) != len(Dashboards())+4 {
		t.Errorf("told %q", said)
	}

	// Again, as after an upgrade, without the token: what is there stays.
	in.ReaderToken = ""
	renamed := g.sources[TracesUID]
	renamed.Name = "Traces of the fleet"
	g.sources[TracesUID] = renamed
	if err := in.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := g.sources[TracesUID]; d.Name != "Traces of the fleet" || d.SecureJSONData["httpHeaderValue1"] != "Bearer reader" {
		t.Errorf("after a second install the traces source is %+v; want its name and token as they were", d)
	}
}

func TestInstallRefused(t *testing.T) {
	g := &double{sources: map[string]dataSource{}, folders: map[string]bool{}, dashboards: map[string]string{}}
	srv := httptest.NewServer(g.handler())
	defer srv.Close()
	in := Installer{URL: srv.URL, Token: "wrong", ManagerURL: "http://manager:9897"}
	if err := in.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "Service accounts") {
		t.Errorf("with a wrong token: %v; want what to do", err)
	}
	in.Token = "glsa_secret"
	if err := in.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "http://manager:9897") {
		t.Errorf("with a manager that Grafana does not reach: %v", err)
	}
	in.URL = "grafana:3000"
	if err := in.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "want http://") {
		t.Errorf("with an address without a scheme: %v", err)
	}
}

// TestSourcesEqual keeps what Install makes equal to the provisioning file.
func TestSourcesEqual(t *testing.T) {
	b, err := os.ReadFile("provisioning/datasources/binnacle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Datasources []struct {
			UID, Name, Type, Access, URL string
			JSONData                     map[string]any `yaml:"jsonData"`
		}
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	made := Installer{ManagerURL: "$BINNACLE_URL"}.sources()
	if len(made) != len(f.Datasources) {
		t.Fatalf("the file has %d data sources, Install makes %d", len(f.Datasources), len(made))
	}
	for i, want := range f.Datasources {
		got := made[i]
		a, _ := json.Marshal(got.JSONData)
		b, _ := json.Marshal(want.JSONData)
		if got.UID != want.UID || got.Name != want.Name || got.Type != want.Type || got.Access != want.Access || got.URL != want.URL || string(a) != string(b) {
			t.Errorf("Install makes %+v %s; the file has %+v %s", got, a, want, b)
		}
	}
}
