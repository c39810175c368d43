package activity

import (
	"slices"
	"time"
)

// warmAlways bounds the aggregates up to which the sums of all windows are kept
// without having been asked for: see BenchmarkStep.
const warmAlways = 50_000

// warm makes what is read, so that readers do not wait. Run calls it at each
// step.
func (a *Aggregator) warm() { a.warmAt(aligned(time.Now())) }

// warmAt makes all of the windows that were read in the last minute. Of the
// others it keeps the sums, so that the first who asks has only the rows to wait
// for.
func (a *Aggregator) warmAt(now int64) {
	a.mu.Lock()
	always := len(a.keys.byID) <= warmAlways
	a.mu.Unlock()
	var unread []int
	for i, w := range Windows {
		switch asked := now-a.asked[i].Load() <= 60; {
		case asked:
			a.snapshotAt(i, now)
			if end := matrixEnd(i, now); !a.matrix[i].Load().good(end, end) {
				a.makeMatrix(i, end)
			}
			a.warmed[i] = matrixEnd(i, now)
		case always || w == time.Minute:
			unread = append(unread, i)
		}
	}
	a.refresh(unread, now)
	for _, i := range unread {
		if Windows[i] == time.Minute {
			a.snapshotAt(i, now)
		}
	}
	a.warming.Store(true)
}

// refresh adds up what changed in some of the windows.
func (a *Aggregator) refresh(windows []int, now int64) {
	if len(windows) == 0 {
		return
	}
	var due []int // for pairs
	for _, i := range windows {
		if end := matrixEnd(i, now); a.warmed[i] != end {
			a.warmed[i] = end
			due = append(due, i)
		}
	}
	for kd := range numKinds {
		these, pairs := windows, kd == kindNodeBackend
		if pairs {
			these = due
		}
		a.mu.Lock()
		keys := a.keys.of(kd).keys
		a.mu.Unlock()
		for part := range slices.Chunk(keys, matrixPart) {
			a.mu.Lock()
			for _, k := range part {
				rest := these
				if len(these) > 1 && these[0] == 0 && these[1] == 1 {
					k.refreshShort(now, &a.reading)
					rest = these[2:]
				}
				for _, i := range rest {
					at, w := now, int64(Windows[i]/time.Second)
					if pairs {
						at = matrixEnd(i, now)
					}
					k.refresh(i, w, at, pairs && matrixSteps[i] > fineStep, &a.reading)
				}
			}
			a.mu.Unlock()
		}
	}
}
