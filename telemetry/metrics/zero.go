package metrics

// stamp notes the time of a stored point.
func (f *family) stamp(t int64) {
	if t > f.at {
		f.before, f.at = f.at, t
	}
}

// zeroAt returns when a cumulative stream that starts at start and is stored at
// t was last known to be zero, and false if that needs no sample. That is its
// start or, for a new series of a metric that was exported before, the export
// before: it had no such series yet.
func (f *family) zeroAt(s *Series, start uint64, t int64) (int64, bool) {
	st := millis(start)
	if st == 0 || st >= t {
		return 0, false
	}
	old := s.start.Load()
	if old == st {
		return 0, false
	}
	s.start.Store(st)
	if old != 0 {
		return st, t-st < maxZeroAge // a restart
	}
	before := f.at
	if before >= t {
		before = f.before
	}
	if before > st && before < t {
		return before, true
	}
	return st, t-st < maxZeroAge
}

// maxZeroAge is how far back (ms) a zero sample may lie: half of what the TSDB
// keeps open in memory. Older ones it would take for late samples, or, in an
// empty store, for the beginning of all its blocks.
const maxZeroAge = 3_600_000
