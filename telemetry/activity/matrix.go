package activity

import (
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// matrix is what readers share of node x backend over one window. It is larger by
// far than all else and read less.
type matrix struct {
	at   int64             // the window's end, Unix seconds
	rows []api.ActivityRow // by backend, then node
}

// matrixSteps is by how many seconds the matrix of each of Windows moves on: each
// of tens of thousands of pairs is added up anew for each of a window's steps in
// which it had calls, and an hour is no other after two seconds. All else moves on
// by fineStep in all windows.
var matrixSteps = [numWindows]int64{fineStep, fineStep, 10, 60}

// matrixEnd returns where the matrix of Windows[i] ends at now.
func matrixEnd(i int, now int64) int64 { return now - now%matrixSteps[i] }

// matrixOf returns the matrix of Windows[i] as of now.
func (a *Aggregator) matrixOf(i int) *matrix {
	now := aligned(time.Now())
	a.asked[i].Store(now)
	return a.matrixAt(i, now)
}

// matrixAt returns the matrix of Windows[i] at now. While Run makes one for each
// step, that of the step before is given in the moments until it is there.
func (a *Aggregator) matrixAt(i int, now int64) *matrix {
	end := matrixEnd(i, now)
	oldest := end
	if a.warming.Load() && now == end {
		oldest -= matrixSteps[i]
	}
	if m := a.matrix[i].Load(); m.good(oldest, end) {
		return m
	}
	return a.makeMatrix(i, end)
}

// good reports whether m is of a time between two.
func (m *matrix) good(oldest, now int64) bool {
	return m != nil && m.at >= oldest && m.at <= now
}

// matrixPart is how many pairs are read at once: telemetry does not wait longer
// for the lock than these take, about a millisecond.
const matrixPart = 1000

func (a *Aggregator) makeMatrix(i int, end int64) *matrix {
	a.making.Lock() // others who need it wait for this one
	defer a.making.Unlock()
	if m := a.matrix[i].Load(); m.good(end, end) {
		return m
	}
	a.mu.Lock()
	all, drops := a.keys.of(kindNodeBackend), a.keys.drops
	a.mu.Unlock()
	m := &matrix{at: end, rows: make([]api.ActivityRow, 0, len(all.keys))}
	for from := 0; from < len(all.keys); from += matrixPart {
		to := min(from+matrixPart, len(all.keys))
		a.mu.Lock()
		m.rows = a.rowsLocked(ordered{all.keys[from:to], all.names[from:to]}, i, end, matrixSteps[i] > fineStep, m.rows)
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys.drops == drops { // or it may hold a node that was forgotten meanwhile
		a.matrix[i].Store(m)
	}
	return m
}
