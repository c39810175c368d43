package traces

import (
	"fmt"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
)

// Sampling decides which traces are kept once enough of their spans have come
// (tail sampling). The zero value keeps all and costs nothing.
//
// Spans that wait for a decision are on disk within a second like all others,
// as blocks of their own, are in every answer, and wait on after a crash: what
// was acknowledged is lost only where a rule says so, which is counted.
// docs/adr/ has the reasons.
type Sampling struct {
	Rules Rules
	// Window is the time from a trace's first span to its decision, which may
	// come up to a quarter of it later. Spans that come after it follow the
	// decision. Longer means fewer late spans and more memory. Default 10 s.
	Window time.Duration
	// MaxBytes bounds the spans in memory that wait, of which each takes about
	// 300 bytes. Beyond it the oldest are decided early; beyond twice that,
	// which only a disk that takes no writes brings about, spans are refused as
	// retryable. Default 256 MiB.
	MaxBytes int64
}

// DefaultSampling has the defaults of all but the rules.
func DefaultSampling() Sampling { return Sampling{Window: 10 * time.Second, MaxBytes: 256 << 20} }

func (s Sampling) withDefaults() Sampling {
	d := DefaultSampling()
	if s.Window <= 0 {
		s.Window = d.Window
	}
	if s.MaxBytes <= 0 {
		s.MaxBytes = d.MaxBytes
	}
	return s
}

// undecided is a block that waits: it is on disk under its key and in memory, and
// no longer changes.
type undecided struct {
	*block
	key   []byte
	since time.Time
	bytes int64
}

// hold puts a block on disk among the undecided, synced.
func (s *Store) hold(sb *sealingBlock) (u *undecided, err error) {
	data := encodeBlock(nil, sb.block)
	s.commits.Lock()
	defer s.commits.Unlock()
	defer recoverPebble(&err)
	now := s.o.now()
	k := seqKey(partitionOf(now), kindUndecided, s.nextUndecided)
	if err := s.db.Set(k, data, pebble.Sync); err != nil {
		return nil, err
	}
	s.nextUndecided++
	return &undecided{sb.block, k, now, int64(sb.size())}, nil
}

// restoreUndecided reads the blocks that waited when the store was closed, or
// its process killed. Their window begins anew.
func (s *Store) restoreUndecided() error {
	s.undecided, s.undecidedBytes, s.docket = nil, 0, newDocket(s.o.Sampling.Rules)
	return s.restore(kindUndecided, func(hour partition, seq uint32, b *block) {
		s.nextUndecided = max(s.nextUndecided, seq+1)
		s.docket.hear(b, 0)
		u := &undecided{b, seqKey(hour, kindUndecided, seq), s.o.now(), int64(b.size())}
		s.undecided = append(s.undecided, u)
		s.undecidedBytes += u.bytes
	})
}

// due returns the undecided blocks whose time has come, the oldest first, and
// those that must go early for want of memory.
func due(all []*undecided, now time.Time, o Sampling) (ready []*undecided, early int) {
	var bytes int64
	for _, u := range all {
		bytes += u.bytes
	}
	for _, u := range all {
		old := now.Sub(u.since) >= o.Window || len(o.Rules) == 0
		if !old && bytes <= o.MaxBytes {
			break
		}
		if !old {
			early++
		}
		ready, bytes = append(ready, u), bytes-u.bytes
	}
	return ready, early
}

// decide gives every trace of the blocks whose time has come its verdict, writes
// what is kept and deletes the rest, in one synced batch: a crash comes before
// all of it or after. It does so at most every quarter of a window, since few
// large blocks are better than many small ones, or at once where memory or the
// end of sampling asks for it.
func (s *Store) decide() error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	now := s.o.now()
	s.mu.Lock()
	ready, early := due(s.undecided, now, s.o.Sampling)
	rest := now.Sub(s.decided) < min(s.o.Sampling.Window/4, 5*time.Second)
	if len(ready) == 0 || rest && early == 0 && len(s.o.Sampling.Rules) > 0 {
		s.mu.Unlock()
		return nil
	}
	s.decided = now
	keep := make([][]bool, len(ready))
	tally := map[verdict]*ruling{}
	for i, u := range ready {
		keep[i] = make([]bool, len(u.traces))
		of := make([]*ruling, len(u.traces))
		for t, id := range u.traces {
			v, fresh := s.docket.decide(id)
			keep[i][t] = v.kept
			r := tally[v]
			if r == nil {
				r = &ruling{}
				tally[v] = r
			}
			if of[t] = r; fresh {
				r.traces++
			}
		}
		for j := range u.spans {
			of[u.spans[j].trace].spans++
		}
	}
	s.docket.forget(now, s.o.Sampling.Window)
	s.mu.Unlock()

	out := []*block{newBlock()}
	for i, u := range ready {
		last := out[len(out)-1]
		last.copyTraces(u.block, keep[i])
		if len(last.spans) >= maxBlockSpans || last.size() >= maxBlockBytes {
			out = append(out, newBlockAfter(last))
		}
	}
	out = slices.DeleteFunc(out, func(b *block) bool { return len(b.spans) == 0 })
	small, err := s.commit(out, ready)
	if err != nil {
		s.meters.failed.Inc()
		return fmt.Errorf("write what sampling keeps of %d blocks: %w", len(ready), err)
	}
	s.mu.Lock()
	s.undecided = slices.DeleteFunc(s.undecided, func(u *undecided) bool {
		gone := slices.Contains(ready, u)
		if gone {
			s.undecidedBytes -= u.bytes
		}
		return gone
	})
	s.gatherLocked(small)
	s.mu.Unlock()
	if len(s.o.Sampling.Rules) > 0 {
		s.meters.sampling.book(tally, early)
	}
	return nil
}

// ruling counts what got one verdict.
type ruling struct{ traces, spans int }

// samplingMeters are the metrics of sampling.
type samplingMeters struct {
	early         *metrics.Counter
	late          map[bool]*metrics.Counter // by whether the trace was kept
	traces, spans map[verdict]*metrics.Counter
}

func verdictLabel(kept bool) string {
	if kept {
		return "kept"
	}
	return "dropped"
}

func newSamplingMeters(set *metrics.Set, rules Rules) samplingMeters {
	m := samplingMeters{late: map[bool]*metrics.Counter{}, traces: map[verdict]*metrics.Counter{}, spans: map[verdict]*metrics.Counter{}}
	if len(rules) == 0 {
		return m
	}
	m.early = set.GetOrCreateCounter("binnacle_traces_sampling_early_blocks_total")
	for _, kept := range []bool{true, false} {
		m.late[kept] = set.GetOrCreateCounter(fmt.Sprintf("binnacle_traces_sampling_late_spans_total{verdict=%q}", verdictLabel(kept)))
		for i := range len(rules) + 1 {
			v := verdict{uint8(i), kept}
			if i == len(rules) {
				v.rule = noRule
			}
			if v.rule == noRule && !kept {
				continue // what no rule is for is kept
			}
			labels := fmt.Sprintf("{rule=%q,verdict=%q}", rules.name(v), verdictLabel(kept))
			m.traces[v] = set.GetOrCreateCounter("binnacle_traces_sampling_traces_total" + labels)
			m.spans[v] = set.GetOrCreateCounter("binnacle_traces_sampling_spans_total" + labels)
		}
	}
	return m
}

// book counts what was decided and is on disk.
func (m *samplingMeters) book(tally map[verdict]*ruling, early int) {
	for v, r := range tally {
		m.traces[v].Add(r.traces)
		m.spans[v].Add(r.spans)
	}
	m.early.Add(early)
}
