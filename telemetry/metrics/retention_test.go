package metrics

import (
	"context"
	"testing"
	"time"
)

// firstSample is how far back keepBlocks begins.
const firstSample = 330 * time.Minute

// keepBlocks fills a store with a sample for each five minutes of the last five
// hours and a half, in blocks of two hours but for what is newest, and closes it.
func keepBlocks(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(Options{Dir: dir, Retention: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for at := now.Add(-firstSample); !at.After(now); at = at.Add(5 * time.Minute) {
		md, ms := gateway("n-1")
		for _, name := range []string{"g", "h", "i", "j"} {
			gauge(ms, name, at, 1)
		}
		write(t, s, node1, md)
	}
	if err := s.db.Compact(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.db.Blocks()); n < 1 {
		t.Fatalf("%d blocks were made; want one at least", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// oldest returns how far back the samples of g reach.
func oldest(t *testing.T, s *Store) time.Duration {
	t.Helper()
	vec, err := s.Query(t.Context(), `min(min_over_time(timestamp(g)[10h:5m]))`, now)
	if err != nil || len(vec) != 1 {
		t.Fatalf("the oldest sample: %v, %v", vec, err)
	}
	return now.Sub(time.Unix(int64(vec[0].F), 0))
}

// TestRetention opens a store of five hours anew, with bounds of time and of
// size, and wants whole old blocks to go, the newest data to stay, and each to be
// counted.
func TestRetention(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*Options)
		dropped bool
		metric  string
	}{
		{"kept", func(o *Options) {}, false, ""},
		{"by time", func(o *Options) { o.Retention = 2 * time.Hour }, true, "prometheus_tsdb_time_retentions_total"},
		{"by size", func(o *Options) { o.MaxBytes = 1 }, true, "prometheus_tsdb_size_retentions_total"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			keepBlocks(t, dir)
			s := openStore(t, func(o *Options) { o.Dir = dir; tt.change(o) })
			if err := s.db.Compact(context.Background()); err != nil { // what the TSDB does each minute
				t.Fatal(err)
			}
			age := oldest(t, s)
			// The first block holds some of it at least, whatever the time of day.
			if (age < firstSample) != tt.dropped {
				t.Errorf("the oldest sample is %s old; the first was %s, dropped should be %v", age, firstSample, tt.dropped)
			}
			wantQuery(t, s, `count({__name__=~"[ghij]"})`, now, `{} 4`)
			if tt.metric == "" {
				return
			}
			families, err := s.reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == tt.metric {
					if got := f.GetMetric()[0].GetCounter().GetValue(); got < 1 {
						t.Errorf("%s is %g; want 1 at least", tt.metric, got)
					}
					return
				}
			}
			t.Errorf("there is no %s", tt.metric)
		})
	}
}

// TestOutOfOrderWindow: what a spool brings back within the window is stored and
// found; what is older is refused for good, told and counted.
func TestOutOfOrderWindow(t *testing.T) {
	s := openStore(t)
	md, ms := gateway("n-1")
	gauge(ms, "g", now, 1)
	write(t, s, node1, md)
	for _, tt := range []struct {
		age   time.Duration
		taken bool
	}{{time.Minute, true}, {3 * time.Hour, true}, {6*time.Hour - time.Second, true}, {6*time.Hour + time.Second, false}, {48 * time.Hour, false}} {
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(-tt.age), 2)
		if !tt.taken {
			refused(t, s, node1, md, 1, "older than 6h0m0s")
			continue
		}
		write(t, s, node1, md)
		wantQuery(t, s, `g`, now.Add(-tt.age), `{__name__="g", group="default", instance="n-1", job="binnacle-gateway", process="p-1"} 2`)
	}
	if n := s.self.rejected[tooOld].Get(); n != 2 {
		t.Errorf("too old: counted %d; want 2", n)
	}
}
