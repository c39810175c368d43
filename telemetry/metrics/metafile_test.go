package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMetadataOutlivesTheSender: after a restart, metrics that nobody sends any
// more still have a type, and their classic names are found.
func TestMetadataOutlivesTheSender(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	md, ms := payloadOf("service.name", "x")
	exponential(ms, "d", now.Add(-time.Minute), now, 3, 0, []uint64{3}, 1)
	ms.At(0).SetDescription("How long.")
	write(t, first, node1, md)
	first.sweep(now) // and not at the end, as when the process is killed
	if err := os.Rename(filepath.Join(dir, metaFile), filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, metaFile)); err != nil {
		t.Fatal(err)
	}

	s := openStore(t, func(o *Options) { o.Dir = dir })
	base := serve(t, s)
	if _, body := call(t, "GET", base+"metadata", nil); !strings.Contains(body, `"d_seconds":[{"type":"histogram","unit":"seconds","help":"How long."}]`) {
		t.Errorf("metadata after a restart: %s", body)
	}
	wantQuery(t, s, `{__name__=~"d_.+_count"}`, now, `{__name__="d_seconds_count", job="x"} 3`)
	if _, body := call(t, "GET", base+"label/__name__/values", nil); !strings.Contains(body, `["d_seconds","d_seconds_bucket","d_seconds_count","d_seconds_sum"]`) {
		t.Errorf("names after a restart: %s", body)
	}
}

// TestMetadataOfNothingIsForgotten: names without a stored series leave room.
func TestMetadataOfNothingIsForgotten(t *testing.T) {
	for _, form := range []string{Native, Classic} {
		s := openStore(t, func(o *Options) { o.Histograms = form })
		md, ms := payloadOf("service.name", "x")
		explicitHistogram(ms, "d", now.Add(-time.Minute), now, []float64{1}, []uint64{1, 2}, 5)
		write(t, s, node1, md)
		md, ms = payloadOf("service.name", "x")
		gauge(ms, "refused", now.Add(24*time.Hour), 1)
		refused(t, s, node1, md, 1, "ahead")
		s.Describe("ours", Metadata{Type: "histogram"})
		for range 2 {
			s.sweep(now)
		}
		if got := s.meta.list("", -1, -1); len(got["d_seconds"]) != 1 || len(got["ours"]) != 1 || len(got["refused"]) != 0 {
			t.Errorf("%s: known after two sweeps: %v; want d_seconds and ours", form, got)
		}
	}
}

func TestDamagedMetadata(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"d":[{"type":3}]}`, `{"d":null}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, metaFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, func(o *Options) { o.Dir = dir; o.Log = nil })
		if got := s.meta.list("", -1, -1); len(got) != 0 {
			t.Errorf("metadata of %q: %v", text, got)
		}
	}
}
