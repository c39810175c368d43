package activity

import (
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// row is an activity with what it points to.
type row struct {
	act     api.Activity
	ratio   float64
	latency api.Latency
}

// show fills r and returns the activity. The rate is over seconds, which is about
// w; seen is in Unix ns.
func (r *row) show(s *shown, w, seconds int64, total uint64, seen int64) *api.Activity {
	a := &r.act
	for _, n := range s.n {
		a.Requests += n
	}
	a.Window = float64(w)
	a.RequestsPerSecond = float64(a.Requests) / float64(seconds)
	a.Errors = s.n[binnacle.Error]
	a.ClientErrors = s.n[binnacle.ClientError]
	a.Limited = s.n[binnacle.Limited]
	a.RequestsTotal = total
	a.LastSeen = time.Unix(0, seen).UTC()
	if a.Requests > 0 {
		r.ratio = float64(a.Errors) / float64(a.Requests)
		a.ErrorRatio = &r.ratio
	}
	if s.timed {
		r.latency = s.latency
		a.Latency = &r.latency
	}
	return a
}

// slab hands out rows that lie side by side: there are tens of thousands, made
// together and dropped together.
type slab struct{ rows []row }

func newSlab(n int) *slab { return &slab{make([]row, n)} }

func (s *slab) next() *row {
	r := &s.rows[0]
	s.rows = s.rows[1:]
	return r
}
