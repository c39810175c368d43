package activity

import (
	"cmp"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// TestWindowsHoldWhatWasBooked books increases in and out of order and holds
// every window, at moments before and after slots close, against the bare list.
func TestWindowsHoldWhatWasBooked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type one struct {
			at int64 // Unix ns
			o  binnacle.Outcome
			n  uint64
		}
		var (
			k     key
			ws    space
			wk    work
			all   []one
			start = int64(1_800_000_000)
			now   = start
		)
		for range rapid.IntRange(1, 60).Draw(t, "bookings") {
			now += rapid.Int64Range(0, 45).Draw(t, "pause")
			b := one{
				at: (now-rapid.SampledFrom([]int64{0, 0, 0, 1, 3, 29, 90}).Draw(t, "late"))*int64(time.Second) - rapid.Int64Range(0, 1e9-1).Draw(t, "ns"),
				o:  rapid.SampledFrom([]binnacle.Outcome{binnacle.OK, binnacle.Error, binnacle.Limited}).Draw(t, "outcome"),
				n:  rapid.Uint64Range(1, 5).Draw(t, "n"),
			}
			all = append(all, b)
			i := indexOf(rapid.Float64Range(0.001, 10).Draw(t, "seconds"))
			k.touch(b.at)
			k.book(b.o, &increase{count: b.n, buckets: []bucket{{i, b.n}}}, b.at, now, &ws)

			read := (now + rapid.Int64Range(0, 40).Draw(t, "wait")) / fineStep * fineStep
			for i, w := range Windows {
				w := int64(w / time.Second)
				parts, _ := cut(read, w)
				var requests, errors, timed uint64
				for _, b := range all {
					for tier := range topTier(w) + 1 {
						if s := slotOf(b.at, tiers[tier].step); s > parts[tier].from && s <= parts[tier].to {
							requests += b.n
							if b.o == binnacle.Error {
								errors += b.n
							}
							if b.o != binnacle.Limited {
								timed += b.n
							}
						}
					}
				}
				// What is kept from read to read, with nothing booked between, is
				// what adding up anew gives.
				for later := read; later <= read+4000; later += max(fineStep, (later-read)/4/fineStep*fineStep) {
					_, seconds := cut(later, w)
					want, _ := k.activity(w, later, &wk)
					var got *api.Activity
					if s := k.refresh(i, w, later, false, &wk); s.some {
						got = new(row).show(s, w, seconds, k.total, k.lastFed)
					}
					if i == 1 {
						k.refreshShort(later, &wk)
						for i, w := range Windows[:2] {
							short, w := k.windows[i], int64(w/time.Second)
							k.touched++
							if anew := k.refresh(i, w, later, false, &wk); short.n != anew.n || short.latency != anew.latency || short.some != anew.some || short.until != anew.until {
								t.Fatalf("window %d at +%d, both at once: got %+v; want %+v", w, later-start, short, *anew)
							}
						}
					}
					if !reflect.DeepEqual(got, want) {
						t.Fatalf("window %d at +%d, read before: got %+v; want %+v", w, later-start, got, want)
					}
				}
				act, _ := k.activity(w, read, &wk)
				if act == nil {
					oldest := slices.MinFunc(all, func(a, b one) int { return cmp.Compare(a.at, b.at) })
					if k.lastFed/int64(time.Second) > read-w-fineStep && oldest.at <= read*int64(time.Second) {
						t.Fatalf("window %d at +%d: no data", w, read-start)
					}
					continue
				}
				if act.Requests != requests || act.Errors != errors || wk.sum.count() != timed {
					t.Fatalf("window %d at +%d: got %d requests, %d errors, %d timed; want %d, %d, %d", w, read-start, act.Requests, act.Errors, wk.sum.count(), requests, errors, timed)
				}
			}
		}
	})
}
