package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	start := now.Add(-20 * time.Minute)
	for i := range 3 {
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		md, ms := gateway("n-1")
		at := now.Add(time.Duration(i) * 10 * time.Second)
		counter(ms, "c", start, at, int64(i+1))
		exponential(ms, "e", start, at, 3, 0, []uint64{uint64(i + 1)}, 1)
		write(t, s, node1, md)
		// One zero sample, at the start, in the first life only.
		for series, list := range samples(t, s) {
			if want := i + 2; len(list) != want || !strings.HasPrefix(list[0], "-20m0s ") {
				t.Errorf("life %d: %s holds %q; want %d samples from -20m on", i, series, list, want)
			}
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTornLog cuts the newest log segment short at many places, as a power
// failure does, and wants the store to open with what was before the cut.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(time.Duration(i)*time.Second), float64(i))
		write(t, s, node1, md)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segment, err := newestSegment(filepath.Join(dir, "wal"))
	if err != nil || segment == "" {
		t.Fatalf("newest segment: %q, %v", segment, err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "wal", segment))
	if err != nil {
		t.Fatal(err)
	}
	log = bytes.TrimRight(log, "\x00")
	for cut := 0; cut < len(log); cut += 1 + len(log)/40 {
		torn := t.TempDir()
		if err := os.MkdirAll(filepath.Join(torn, "wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(torn, "wal", segment), log[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{Dir: torn})
		if err != nil {
			t.Errorf("log cut at byte %d of %d: %v", cut, len(log), err)
			continue
		}
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(time.Minute), 99)
		write(t, s, node1, md)
		wantQuery(t, s, `sum(g)`, now.Add(time.Minute), `{} 99`)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCorruptBlockIsPutAside(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		md, ms := gateway("n-1")
		gauge(ms, "g", now.Add(time.Duration(i-3)*2*time.Hour), 1)
		write(t, s, node1, md)
	}
	if err := s.db.Compact(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.db.CompactHead(tsdb.NewRangeHead(s.db.Head(), now.Add(-6*time.Hour).UnixMilli(), now.Add(-5*time.Hour).UnixMilli())); err != nil {
		t.Fatal(err)
	}
	blocks := s.db.Blocks()
	if len(blocks) == 0 {
		t.Fatal("no block was made")
	}
	bad := blocks[0].Dir()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bad, "index"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = openStore(t, func(o *Options) { o.Dir = dir; o.Log = textLog(&log) })
	if n := s.self.quarantined.Get(); n != 1 {
		t.Errorf("%d blocks counted as put aside; want 1", n)
	}
	if _, err := os.Stat(filepath.Join(dir, corruptDir, filepath.Base(bad), "index")); err != nil {
		t.Errorf("the block was not kept: %v", err)
	}
	if !strings.Contains(log.String(), filepath.Base(bad)) {
		t.Errorf("the log does not name the block:\n%s", log.String())
	}
	wantQuery(t, s, `count(g)`, now.Add(-2*time.Hour), `{} 1`)
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Dir is empty"},
		{Options{Dir: "x", Histograms: "fancy"}, `histograms "fancy": want native, classic or both`},
		{Options{Dir: "x", Retention: -1}, "retention is -1"},
		{Options{Dir: "x", Query: QueryLimits{Concurrency: -2}}, "query concurrency is -2"},
		{Options{Dir: "x", MaxBytes: -1}, "size limit is -1 bytes"},
	} {
		if _, err := Open(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%+v): error %v; want %q", c.o, err, c.want)
		}
	}
}

func TestBatch(t *testing.T) {
	s := openStore(t)
	h := s.Series(labels.FromStrings(nameLabel, "group:http_server_request_duration_seconds", "group", "g", "outcome", "ok", "revision", "1"))
	sample := func(n int64) *histogram.Histogram {
		return &histogram.Histogram{Schema: 3, Count: uint64(n), Sum: 1, ZeroThreshold: defaultZeroThreshold, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []int64{n}}
	}
	b := s.Batch()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.AppendZero(h, now.Add(-10*time.Second).UnixMilli(), sample(1)))
	must(b.AppendHistogram(h, now.UnixMilli(), sample(7)))
	bad := sample(3)
	bad.Count = 99
	if err := b.AppendHistogram(h, now.UnixMilli(), bad); err == nil || !strings.Contains(err.Error(), `outcome="ok"`) {
		t.Errorf("an inconsistent histogram: error %v; want one with the series", err)
	}
	if b.Len() != 1 {
		t.Errorf("batch of %d samples; want 1", b.Len())
	}
	must(b.Commit())
	wantQuery(t, s, `histogram_count(increase(group:http_server_request_duration_seconds[10001ms]))`, now, `{group="g", outcome="ok", revision="1"} 7`)

	b = s.Batch()
	must(b.AppendZero(h, now.Add(-time.Second).UnixMilli(), sample(1))) // older than the newest: nothing
	must(b.AppendHistogram(h, now.UnixMilli(), sample(7)))              // sent twice
	must(b.Commit())
	b = s.Batch()
	must(b.AppendHistogram(h, now.Add(time.Second).UnixMilli(), sample(8)))
	must(b.Rollback())
	for _, list := range samples(t, s) {
		if len(list) != 2 {
			t.Errorf("the series holds %q; want two samples", list)
		}
	}
	b = s.Batch()
	if err := b.AppendFloat(h, now.Add(-8*time.Hour).UnixMilli(), 1); !errors.Is(err, storage.ErrTooOldSample) {
		t.Errorf("a sample of eight hours ago: error %v; want ErrTooOldSample", err)
	}
	must(b.Rollback())
}

// TestLargeBatch stores a batch that is committed in parts, two samples of each
// series, of which a part ends between.
func TestLargeBatch(t *testing.T) {
	s := openStore(t)
	const n = 2*partSize + 301 // odd
	b := s.Batch()
	for i := range n {
		h := s.Series(labels.FromStrings(nameLabel, "many", "i", fmt.Sprint(i)))
		for k := range int64(2) {
			at := now.Add(time.Duration(k) * time.Second).UnixMilli()
			if err := b.AppendHistogram(h, at, &histogram.Histogram{Schema: 3, Count: uint64(k + 1), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{k + 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b.Len() != 2*n {
		t.Errorf("batch of %d samples; want %d", b.Len(), 2*n)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	all := samples(t, s)
	if len(all) != n {
		t.Fatalf("%d series are stored; want %d", len(all), n)
	}
	for series, list := range all {
		if len(list) != 2 {
			t.Fatalf("%s holds %q; want two samples", series, list)
		}
	}

	b = s.Batch()
	for i := range n {
		if err := b.AppendFloat(s.Series(labels.FromStrings(nameLabel, "dropped", "i", fmt.Sprint(i))), now.UnixMilli(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Rollback(); err != nil {
		t.Fatal(err)
	}
	if all := samples(t, s); len(all) != n {
		t.Errorf("%d series have samples after a rollback; want %d", len(all), n)
	}
}

func TestScrape(t *testing.T) {
	s := openStore(t)
	set := vm.NewSet()
	set.NewCounter(`binnacle_events_total{kind="node.joined",group="a b,}\"\\c"}`).Set(3)
	set.NewCounter("binnacle_plain_total").Set(4)
	set.NewGauge(`binnacle_gauge{job="own"}`, func() float64 { return -1.5 })
	lbls := labels.FromStrings("job", "binnacle-manager", "instance", "m-1")
	for i := range 2 {
		if err := s.Scrape(t.Context(), []*vm.Set{set, s.opts.Metrics}, lbls, now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	at := now.Add(time.Second)
	wantQuery(t, s, `{__name__=~"binnacle_(events_total|plain_total|gauge)"}`, at,
		`{__name__="binnacle_events_total", group="a b,}\"\\c", instance="m-1", job="binnacle-manager", kind="node.joined"} 3`,
		`{__name__="binnacle_plain_total", instance="m-1", job="binnacle-manager"} 4`,
		`{__name__="binnacle_gauge", instance="m-1", job="own"} -1.5`)
	wantQuery(t, s, `count(binnacle_metrics_points_rejected_total{job="binnacle-manager"})`, at, fmt.Sprintf(`{} %d`, numReasons))
	wantQuery(t, s, `count(prometheus_tsdb_head_series_created_total)`, at, `{} 1`)
	s.scraped.sweep()
	s.scraped.sweep()
	if n := len(s.scraped.m); n != 0 {
		t.Errorf("%d handles left after two sweeps; want none", n)
	}
	if n, err := s.scrapeText([]byte("good 1\nbad{x=\"} 1\nworse\n"), lbls, now.Add(time.Minute).UnixMilli()); n != 1 || err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("bad lines: stored %d, error %v; want 1 and an error with the line", n, err)
	}
}

// TestLogSync checks that Run syncs the log while data comes in and when it
// ends, over a change of segments.
func TestLogSync(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := newLogSyncer(dir)
	defer l.close()
	step := func(segment string, size int) {
		t.Helper()
		if segment != "" {
			if err := os.WriteFile(filepath.Join(dir, "wal", segment), make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.sync(); err != nil {
			t.Fatal(err)
		}
		if g := l.logs[0]; g.name != segment || segment != "" && g.size != int64(size) {
			t.Errorf("after %s of %d bytes: synced %q to %d", segment, size, g.name, g.size)
		}
	}
	step("", 0)
	step("00000000", 10)
	step("00000000", 20)
	step("00000001", 5)
	if err := os.Remove(filepath.Join(dir, "wal", "00000000")); err != nil { // a checkpoint drops it
		t.Fatal(err)
	}
	step("00000001", 6)
}

func TestRun(t *testing.T) {
	s := openStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	md, ms := gateway("n-1")
	gauge(ms, "g", now, 1)
	write(t, s, node1, md)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := s.self.lastSync.Get(); got < float64(now.Unix()) {
		t.Errorf("last sync at %f; want one at the end", got)
	}
}

func TestUnavailable(t *testing.T) {
	s := openStore(t)
	err := s.commitFailed(fmt.Errorf("write: %w", syscall.ENOSPC))
	var retry interface{ RetryAfter() time.Duration }
	if !errors.As(err, &retry) || retry.RetryAfter() <= 0 || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("a full disk: %v; want a retryable error that says what to do", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := send(ctx, s, node1, pmetric.NewMetrics()); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that has ended: %v", err)
	}
}

// FuzzWriteMetrics feeds payloads to the store as they come off the wire.
func FuzzWriteMetrics(f *testing.F) {
	m := pmetric.ProtoMarshaler{}
	md, ms := gateway("n-1")
	dp := exponential(ms, "e", now, now, 20, -5, []uint64{1, 0, 0, 0, 2}, 1)
	dp.Exemplars().AppendEmpty().SetDoubleValue(1)
	explicitHistogram(ms, "h", now, now, []float64{1, 2}, []uint64{1, 2, 3}, 1)
	ms.At(1).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	counter(ms, "c", now, now, 1, "a", "b")
	q := ms.AppendEmpty().SetEmptySummary().DataPoints().AppendEmpty()
	q.SetTimestamp(stamp(now))
	q.QuantileValues().AppendEmpty().SetQuantile(0.5)
	b, err := m.MarshalMetrics(md)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	s := openStore(f, func(o *Options) { o.Histograms = Both; o.MaxSeries = 10_000 })
	f.Fuzz(func(t *testing.T, b []byte) {
		var m wire.Metrics
		if m.Read(b, noLimits) != nil {
			return
		}
		n, _, err := s.WriteMetrics(t.Context(), node1, &m)
		if err != nil {
			t.Fatal(err)
		}
		if n > m.Points() {
			t.Fatalf("%d of %d points rejected", n, m.Points())
		}
	})
}

// FuzzScrapeText feeds text expositions to the reader of own counters.
func FuzzScrapeText(f *testing.F) {
	for _, s := range []string{"a 1", `a{b="c"} 1 2`, `a{b="c\"}",d=""} NaN`, "# x\n\na{", `a{b=}`, `{} 1`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for line := range bytes.Lines(b) {
			name, _, err := splitSample(bytes.TrimSpace(line))
			if err != nil {
				continue
			}
			if lbls, err := parseSeries(string(name), labels.FromStrings("job", "x")); err == nil && lbls.Get(nameLabel) != "" && lbls.Len() == 0 {
				t.Fatalf("%q: no labels", line)
			}
		}
	})
}
