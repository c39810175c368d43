package metrics

import "slices"

// deltaState turns the delta points of one series into a cumulative one. It
// lives as long as the series is in memory; after that, or after a restart, the
// sum starts again from zero, which readers see as a counter reset.
//
// A batch whose commit fails leaves its increases in the sum: the next sample
// of the series carries them, and the same batch sent again is refused as late.
// So nothing is lost and nothing counted twice.
type deltaState struct {
	start uint64 // of the cumulative stream, Unix ns
	last  uint64 // end of the newest delta, Unix ns

	value    float64
	expo     *expo
	explicit *explicit
}

// next begins with the delta point (start, at] and returns the state, or
// errLateDelta for one that is not newer than the last. The caller holds s.mu.
func (s *Series) nextDeltaLocked(start, at uint64) (*deltaState, error) {
	if s.delta == nil {
		s.delta = &deltaState{start: start}
	}
	if at <= s.delta.last {
		return nil, errLateDelta
	}
	s.delta.last = at
	return s.delta, nil
}

// addExpo adds e and makes it the sum so far. A change of the zero bucket
// starts the sum again: counts cannot be moved out of it.
func (d *deltaState) addExpo(e *expo, start uint64) error {
	if d.expo == nil || d.expo.threshold != e.threshold {
		d.expo, d.start = e.clone(), start
		return nil
	}
	return d.expo.add(e)
}

// addExplicit is addExpo for explicit buckets; other bounds start again.
func (d *deltaState) addExplicit(e *explicit, start uint64) {
	if d.explicit == nil || !slices.Equal(d.explicit.bounds.upper, e.bounds.upper) {
		d.explicit, d.start = e.clone(), start
		return
	}
	d.explicit.add(e)
}
