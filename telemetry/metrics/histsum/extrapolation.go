package histsum

// spacing is how samples lie in the window of a step. Most series of a group
// have theirs at the same times, so that little is left to do for each.
type spacing struct {
	first, last      int64 // times, milliseconds
	intervals        int
	toStart, sampled float64 // seconds
	toEnd            float64
	whole            float64 // the factor, if the counter was not near zero
	near             float64 // a first count below so many increases is
}

// factor is by what an increase between samples is multiplied to be that of the
// whole window, divided by perSecond, as PromQL guesses it: as far as to the ends
// of the window where a sample is near enough, and never to before the counter was
// zero.
func (s *spacing) factor(first, last, begin, end int64, intervals int, firstCount, increase, perSecond float64) float64 {
	if s.first != first || s.last != last || s.intervals != intervals {
		s.first, s.last, s.intervals = first, last, intervals
		s.toStart, s.toEnd = float64(first-begin)/1000, float64(end-last)/1000
		s.sampled = float64(last-first) / 1000
		average := s.sampled / float64(intervals)
		threshold := average * 1.1
		if s.toStart >= threshold {
			s.toStart = average / 2
		}
		if s.toEnd >= threshold {
			s.toEnd = average / 2
		}
		s.whole = (s.sampled + s.toStart + s.toEnd) / s.sampled / perSecond
		s.near = s.toStart / s.sampled * 1.000001 // with room for rounding
	}
	if !(increase > 0 && firstCount >= 0) || firstCount > increase*s.near {
		return s.whole
	}
	toStart := min(s.toStart, s.sampled*(firstCount/increase))
	return (s.sampled + toStart + s.toEnd) / s.sampled / perSecond
}
