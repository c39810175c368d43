package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	binnacle "github.com/binnacle-project/binnacle"
)

// sent adds a histogram whose content says its time, so that one that was
// overwritten shows.
func sent(ms pmetric.MetricSlice, at time.Time, attrs ...string) {
	s := uint64(at.Unix() - now.Unix() + 10_000)
	explicitHistogram(ms, "h", now.Add(-3*time.Hour), at, []float64{1, 2, 3}, []uint64{s, 2 * s, s % 7, 1}, float64(s), attrs...)
}

// TestRecyclingChangesNothing writes the same random batches, late, repeated and
// stale ones among them, to a store that uses histograms again and to one that
// does not.
func TestRecyclingChangesNothing(t *testing.T) {
	for seed := range uint64(6) {
		with, without := openStore(t), openStore(t)
		without.knownSince = math.MaxInt64
		r := rand.New(rand.NewPCG(seed, 3))
		at := now.Add(-20 * time.Minute)
		for range 150 {
			at = at.Add(time.Duration(r.IntN(10)) * time.Second)
			when := at
			switch r.IntN(6) {
			case 0:
				when = at.Add(-time.Duration(r.IntN(90*60)) * time.Second)
			case 1, 2:
				when = at.Add(-time.Duration(r.IntN(20)) * time.Second)
			}
			md := pmetric.NewMetrics()
			for i := range 1 + r.IntN(2)*r.IntN(2) {
				part, ms := gateway(fmt.Sprint("n-", i))
				for k := range 3 {
					order := []string{"a", fmt.Sprint(k), "b", "x"}
					if k == 1 && r.IntN(3) == 0 { // another encoding of the same series
						order = []string{"b", "x", "a", fmt.Sprint(k)}
					}
					sent(ms, when, order...)
					if r.IntN(10) == 0 {
						sent(ms, when.Add(time.Second), order...)
					}
					if r.IntN(20) == 0 {
						ms.At(ms.Len() - 1).Histogram().DataPoints().At(0).SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
					}
					exponential(ms, "e", now.Add(-3*time.Hour), when, 2, int32(r.IntN(3)), []uint64{uint64(r.IntN(3)), 1, 5}, 1, order...)
				}
				part.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
			}
			n1, _, err1 := send(t.Context(), with, node1, md)
			n2, _, err2 := send(t.Context(), without, node1, md)
			if n1 != n2 || err1 != nil || err2 != nil {
				t.Fatalf("seed %d: rejected %d and %d, errors %v and %v", seed, n1, n2, err1, err2)
			}
		}
		got, want := samples(t, with), samples(t, without)
		if !reflect.DeepEqual(got, want) {
			for k := range want {
				if !reflect.DeepEqual(got[k], want[k]) {
					t.Errorf("seed %d: %s:\n got %q\nwant %q", seed, k, got[k], want[k])
				}
			}
		}
		if len(want) < 12 {
			t.Fatalf("seed %d: only %d series: the test shows nothing", seed, len(want))
		}
	}
}

// TestRecyclingConcurrently lets several senders write the same series at once,
// in no order, and wants each sample as it was sent.
func TestRecyclingConcurrently(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 4))
			for i := range 120 {
				at := now.Add(time.Duration(i-200+r.IntN(60)) * time.Second)
				md, ms := gateway("n-1")
				for k := range 4 {
					sent(ms, at, "k", fmt.Sprint(k))
				}
				if r.IntN(4) == 0 { // two resources, one of them twice the same series
					more, ms := gateway("n-1")
					more.ResourceMetrics().At(0).Resource().Attributes().PutStr("host.name", fmt.Sprint(g))
					sent(ms, at.Add(time.Second), "k", "1")
					more.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
				}
				if _, _, err := send(t.Context(), s, binnacle.Origin{Managed: true, Node: "n-1"}, md); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	for series, list := range samples(t, s) {
		for _, line := range list {
			var at string
			if _, err := fmt.Sscan(line, &at); err != nil {
				t.Fatal(err)
			}
			d, err := time.ParseDuration(at)
			if err != nil {
				t.Fatal(err)
			}
			n := uint64(d/time.Second) + 10_000
			want := fmt.Sprintf("sum:%d ", n)
			zero := d <= -time.Hour // the sample before the first
			if !zero && strings.HasPrefix(series, `{__name__="h_seconds"`) && !strings.Contains(line, want) {
				t.Errorf("%s: %s; want %s", series, line, want)
			}
			seen++
		}
	}
	if seen < 400 {
		t.Errorf("only %d samples: the test shows nothing", seen)
	}
}

// TestRecycledZeros makes many series in each batch, whose zeros before the first
// sample are used again for the next batch's.
func TestRecycledZeros(t *testing.T) {
	with, without := openStore(t), openStore(t)
	without.knownSince = math.MaxInt64
	for i := range 20 {
		at := now.Add(time.Duration(i-30) * time.Second)
		md, ms := gateway("n-1")
		for k := range 10 {
			n := uint64(1 + i*10 + k)
			explicitHistogram(ms, "h", at.Add(-time.Minute), at, []float64{1, 2, 3}, []uint64{n, 2 * n, n % 7, 1}, float64(n), "k", fmt.Sprint(i, "-", k))
			exponential(ms, "e", at.Add(-time.Minute), at, 2, 0, []uint64{n, 1, n}, float64(n), "k", fmt.Sprint(i, "-", k))
		}
		for _, s := range []*Store{with, without} {
			if n, why, err := send(t.Context(), s, node1, md); n != 0 || err != nil {
				t.Fatalf("rejected %d: %s, error %v", n, why, err)
			}
		}
	}
	got, want := samples(t, with), samples(t, without)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	empty := 0
	for _, list := range want {
		if !strings.Contains(list[0], "count:") {
			empty++
		}
	}
	if empty < len(want) {
		t.Errorf("%d of %d series begin with a zero: the test shows nothing", empty, len(want))
	}
}
