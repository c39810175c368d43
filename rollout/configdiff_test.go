package rollout

import (
	"fmt"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

func TestDiffConfigs(t *testing.T) {
	before := `{"version": 3, "timeout": "2s", "extra_config": {"security/cors": {"allow_origins": ["a"]}}, "endpoints": [
		{"endpoint": "/gone", "backend": [{"host": ["http://a"], "url_pattern": "/x"}]},
		{"endpoint": "/same", "method": "get"},
		{"endpoint": "/users/{id}", "method": "POST", "backend": [{"host": ["http://a"], "url_pattern": "/x"}]}]}`
	after := `{"version": 3, "timeout": "3s", "extra_config": {"telemetry/logging": {}}, "endpoints": [
		{"endpoint": "/same", "method": "get"},
		{"endpoint": "/users/{id}", "method": "POST", "timeout": "1s", "backend": [{"host": ["http://b"], "url_pattern": "/x"}, {"host": ["http://c"]}]},
		{"endpoint": "new"}]}`
	ends, service, err := diffConfigs([]byte(before), []byte(after))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	fields := func(fs []api.FieldDiff) {
		for _, f := range fs {
			got = append(got, fmt.Sprintf("  %s: %s > %s", f.Path, f.Before, f.After))
		}
	}
	for _, e := range ends {
		got = append(got, e.Change+" "+e.Endpoint)
		fields(e.Fields)
	}
	got = append(got, "service")
	fields(service)
	want := `removed GET /gone
changed POST /users/{id}
  /backend/0/host/0: "http://a" > "http://b"
  /backend/1:  > {"host":["http://c"]}
  /timeout:  > "1s"
added GET /new
service
  /extra_config/security~1cors: {"allow_origins":["a"]} > 
  /extra_config/telemetry~1logging:  > {}
  /timeout: "2s" > "3s"`
	if strings.Join(got, "\n") != want {
		t.Errorf("diffConfigs: got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	ends, service, err = diffConfigs([]byte(before), []byte(before))
	if err != nil || len(ends)+len(service) != 0 || ends == nil || service == nil {
		t.Errorf("no difference: %v, %v, %v; want two empty lists", ends, service, err)
	}
	if _, _, err := diffConfigs([]byte(before), []byte("worker_processes 1;")); err == nil {
		t.Error("what is not JSON was compared")
	}
}

func TestDiffLines(t *testing.T) {
	f := func(before, after, want string) {
		t.Helper()
		if got := diffLines(before, after); got != want {
			t.Errorf("diffLines(%q, %q): got\n%s\nwant\n%s", before, after, got, want)
		}
	}
	f("a\nb", "a\nb", "")
	f("a\nb\nc\nd\ne\nf\ng", "a\nb\nc\nd\nX\nf\ng", "@@ -5,1 +5,1 @@\n b\n c\n d\n-e\n+X\n f\n g\n")
	f("a", "a\nb", "@@ -2,0 +2,1 @@\n a\n+b\n")
	f("", "a", "@@ -1,1 +1,1 @@\n-\n+a\n")
}

func FuzzDiffConfigs(f *testing.F) {
	f.Add([]byte(`{"endpoints": [{"endpoint": "/a"}]}`), []byte(`{"Endpoints": [null, 1, {"method": 3}]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ends, service, err := diffConfigs(a, b)
		if err == nil && string(a) == string(b) && len(ends)+len(service) > 0 {
			t.Fatalf("%q differs from itself: %+v, %+v", a, ends, service)
		}
		diffLines(string(a), string(b))
	})
}
