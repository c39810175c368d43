package engine

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/gin-gonic/gin"
	"pgregory.net/rapid"
)

func testLimiter(rate float64) *limiter {
	return newLimiter(rate, metrics.NewSet().NewCounter("limited"))
}

func TestLimiterRate(t *testing.T) {
	for _, rate := range []float64{0.5, 1, 3, 7, 1000, 123456} {
		synctest.Test(t, func(t *testing.T) {
			l := testLimiter(rate)
			burst := 0
			for {
				if _, ok := l.allow(); !ok {
					break
				}
				burst++
			}
			if want := max(1, int(rate)); burst != want {
				t.Fatalf("rate %v: a full bucket let %d pass; want %d", rate, burst, want)
			}
			// Over ten seconds of pressure, the rate and no more.
			passed := 0
			step := time.Duration(float64(time.Second) / rate / 4)
			for at := time.Duration(0); at < 10*time.Second; at += step {
				time.Sleep(step)
				if _, ok := l.allow(); ok {
					passed++
				}
			}
			if want := 10 * rate; math.Abs(float64(passed)-want) > 1+want/100 {
				t.Errorf("rate %v: %d passed in 10 s under pressure; want %v", rate, passed, want)
			}
			// The wait that a refusal names is enough, and no less is.
			for {
				wait, ok := l.allow()
				if ok {
					continue
				}
				time.Sleep(wait - 1)
				if _, ok := l.allow(); ok {
					t.Errorf("rate %v: allowed before the wait was over", rate)
				}
				time.Sleep(time.Nanosecond)
				if _, ok := l.allow(); !ok {
					t.Errorf("rate %v: refused after the wait it named", rate)
				}
				break
			}
		})
	}
}

// Whatever the arrivals, a client that a bucket of one second covers is never
// refused, and no window gets more than its rate and one bucket.
func TestLimiterProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := rapid.Float64Range(0.1, 50_000).Draw(rt, "rate")
		gaps := rapid.SliceOfN(rapid.Int64Range(0, int64(2*time.Second)), 1, 300).Draw(rt, "gaps")
		fault := "" // rapid fails by panicking, which must not happen in a bubble
		synctest.Test(t, func(*testing.T) {
			l := testLimiter(rate)
			burst := max(1, math.Floor(rate))
			tokens, last := burst, time.Now() // an exact bucket beside it
			start, passed := time.Now(), 0
			for _, gap := range gaps {
				time.Sleep(time.Duration(gap))
				now := time.Now()
				tokens = min(burst, tokens+now.Sub(last).Seconds()*rate)
				last = now
				_, ok := l.allow()
				if !ok && tokens >= 1+1e-6 {
					fault = fmt.Sprintf("rate %v: refused with %v tokens left", rate, tokens)
				}
				if ok {
					tokens--
					passed++
				}
				// Intervals are cut to whole nanoseconds.
				most := (now.Sub(start).Seconds()*rate+max(1, rate))*(1+rate/1e9) + 1
				if float64(passed) > most {
					fault = fmt.Sprintf("rate %v: %d passed in %v; want at most %v", rate, passed, now.Sub(start), most)
				}
			}
		})
		if fault != "" {
			rt.Fatal(fault)
		}
	})
}

func TestLimiterConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(100)
		var passed atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					if _, ok := l.allow(); ok {
						passed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if passed.Load() != 100 {
			t.Errorf("of 1000 at once %d passed; want 100", passed.Load())
		}
	})
}

func TestNoLimit(t *testing.T) {
	for _, rate := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), 2e9} {
		if l := testLimiter(rate); l != nil {
			t.Errorf("newLimiter(%v) is a limit; want none: a node must not stop serving", rate)
		}
	}
}

func TestSetLimit(t *testing.T) {
	backend := newBackend(t, map[string]string{"/a": `{"a": 1}`})
	raw := conf(`{"endpoint": "/a", "backend": [{"host": ["` + backend.URL + `"], "url_pattern": "/a"}]}`)
	set := metrics.NewSet()
	e := New(Options{Log: testLog(t), Metrics: set})
	rate := 2.0
	e.SetLimit(&rate) // before the first configuration
	if err := e.Apply(t.Context(), raw, ref(1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(t.Context()) })
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		e.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	statuses := func(n int) (ok, limited int) {
		for range n {
			switch w := ask("/a"); w.Code {
			case http.StatusOK:
				ok++
			case http.StatusTooManyRequests:
				limited++
				if w.Header().Get("Retry-After") != "1" {
					t.Errorf("Retry-After is %q; want 1", w.Header().Get("Retry-After"))
				}
			default:
				t.Fatalf("status %d", w.Code)
			}
		}
		return ok, limited
	}
	if ok, limited := statuses(6); ok < 2 || limited < 3 {
		t.Errorf("6 at once at 2/s: %d served, %d limited", ok, limited)
	}
	same := 2.0
	e.SetLimit(&same)
	if err := e.Apply(t.Context(), raw, ref(2)); err != nil {
		t.Fatal(err)
	}
	if ok, _ := statuses(6); ok > 2 {
		t.Errorf("the same limit again, or a swap, filled the bucket: %d served", ok)
	}
	if w := ask("/__health"); w.Code != http.StatusOK {
		t.Errorf("the health page answers %d while limited", w.Code)
	}
	if got := e.Limit(); got == nil || *got != 2 {
		t.Errorf("Limit() = %v; want 2", got)
	}
	var text strings.Builder
	set.WritePrometheus(&text)
	if !strings.Contains(text.String(), "binnacle_gateway_limited_total ") || strings.Contains(text.String(), "binnacle_gateway_limited_total 0") {
		t.Errorf("the counter is missing or 0:\n%s", text.String())
	}
	e.SetLimit(nil)
	if ok, limited := statuses(20); ok != 20 || limited != 0 {
		t.Errorf("without a limit: %d served, %d limited", ok, limited)
	}
	if e.Limit() != nil {
		t.Error("Limit() is not nil")
	}
	// Without a limit the way in is the router's own.
	if _, bare := e.current.Load().entry.(*gin.Engine); !bare {
		t.Error("without a limit its code is in the path")
	}
	stop := 0.0
	e.SetLimit(&stop)
	if ok, _ := statuses(5); ok != 5 {
		t.Errorf("a rate of 0 stopped the node: %d of 5 served", ok)
	}
}
