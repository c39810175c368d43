package activity

import (
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/binnacle-project/binnacle"
)

// rollupKind numbers the roll-up metrics; the numbers are in the checkpoint:
// append only.
type rollupKind uint8

const (
	rollupGroup rollupKind = iota
	rollupNode
	rollupEndpoint
	rollupBackend
	rollupNodeBackend
	numRollups
)

var rollupNames = [numRollups]string{
	binnacle.RollupGroup,
	binnacle.RollupNode,
	binnacle.RollupEndpoint,
	binnacle.RollupBackend,
	binnacle.RollupNodeBackend,
}

// Labels of roll-ups beside those of package binnacle.
const (
	labelMethod  = "http_request_method"
	labelRoute   = "http_route"
	labelAddress = "server_address"
	labelPort    = "server_port"
)

// rollupID names one roll-up series. Only the fields of its kind are set.
type rollupID struct {
	kind    rollupKind
	outcome binnacle.Outcome
	// managed series have a revision; the others have neither that nor a group.
	managed  bool
	group    binnacle.Group
	revision binnacle.Revision
	node     binnacle.NodeID
	method   string
	route    string
	address  string
	port     int
}

// labels returns the series' labels, without those that are empty.
func (id rollupID) labels() labels.Labels {
	b := labels.NewScratchBuilder(8)
	add := func(name, value string) {
		if value != "" {
			b.Add(name, value)
		}
	}
	add("__name__", rollupNames[id.kind])
	add(binnacle.LabelGroup, string(id.group))
	if id.managed {
		add(binnacle.LabelRevision, id.revision.String())
	}
	add(binnacle.LabelOutcome, id.outcome.String())
	add(binnacle.LabelInstance, string(id.node))
	add(labelMethod, id.method)
	add(labelRoute, id.route)
	add(labelAddress, id.address)
	if id.port != 0 {
		add(labelPort, strconv.Itoa(id.port))
	}
	b.Sort()
	return b.Labels()
}

// rollupIDOf reads labels back; ok is false for labels that are no roll-up's.
func rollupIDOf(kd rollupKind, l labels.Labels) (id rollupID, ok bool) {
	id.kind = kd
	ok = true
	l.Range(func(l labels.Label) {
		switch l.Name {
		case "__name__":
		case binnacle.LabelGroup:
			id.group = binnacle.Group(l.Value)
		case binnacle.LabelRevision:
			n, err := strconv.ParseUint(l.Value, 10, 64)
			id.revision, id.managed = binnacle.Revision(n), true
			ok = ok && err == nil
		case binnacle.LabelOutcome:
			found := false
			for o := range binnacle.NumOutcomes {
				if o.String() == l.Value {
					id.outcome, found = o, true
				}
			}
			ok = ok && found
		case binnacle.LabelInstance:
			id.node = binnacle.NodeID(l.Value)
		case labelMethod:
			id.method = l.Value
		case labelRoute:
			id.route = l.Value
		case labelAddress:
			id.address = l.Value
		case labelPort:
			n, err := strconv.Atoi(l.Value)
			id.port = n
			ok = ok && err == nil
		default:
			ok = false
		}
	})
	return id, ok
}

// rollup is one roll-up series. The aggregator's mutex guards it.
//
// A sample is written at each tick while senders feed the series; of what one
// sender feeds, not more often than that sends, see rest; of pairs only after an
// increase and once a minute. An increase after a pause is preceded by the old
// value at the tick before, so that it is read in full by any range that covers
// it: for a new series that is the zero sample.
type rollup struct {
	id     rollupID
	series *RollupSeries
	cum    cumulative
	// last is the newest value in the store, and sending that of the tick that is
	// being written; nil is zero or none. The store holds the same objects.
	last, sending *histogram.Histogram
	news          bool  // what is being written has an increase
	dirty         bool  // there has been an increase since
	fed           int64 // Unix ns, when a stream last fed the series, changed or not
	life          int64 // ns; without food for so long the series ends
	// wrote is the time of the newest sample in the store, Unix ms; 0 is none.
	wrote int64
	ended bool // the newest sample is a stale marker
	// floor is the newest value in the store if the checkpoint is older, and
	// after what has happened since the restart for certain, see settle.
	floor, after *cumulative
}

// add adds an increase. fresh says that all of it happened since the restart;
// settling that what the store holds is not known yet.
func (r *rollup) add(inc *increase, fresh, settling bool) {
	if !r.dirty {
		if r.last == nil && r.sending == nil && r.cum.count > 0 { // of an earlier life of the manager
			r.last = r.cum.native(&r.cum)
		}
		r.dirty = true
	}
	r.cum.add(inc)
	if fresh && (settling || r.floor != nil) {
		if r.after == nil {
			r.after = &cumulative{}
		}
		r.after.add(inc)
	}
}

// told returns what streams have told up to the restart: the value without
// what happened afterwards.
func (r *rollup) told() *cumulative {
	if r.after == nil {
		return &r.cum
	}
	inc := r.cum.since(r.after)
	c := &cumulative{}
	c.add(&inc)
	return c
}

// keepAlive is how often an idle pair's series is written, in ms. PromQL looks
// back five minutes.
const keepAlive = 60_000

// rest is for how long (ms) nothing need be written after a sample, where ticks are
// step apart: what one sender feeds has nothing new to tell until that sends again.
func (r *rollup) rest(step int64) int64 {
	if r.id.kind != rollupNode && r.id.kind != rollupNodeBackend || step < rollupStep.Milliseconds() {
		return step
	}
	// life is three intervals; one that is a little longer than a step is a step.
	steps := (r.life/3/1e6 + step*3/4 - 1) / step
	return min(max(steps, 1)*step, keepAlive)
}

// next returns the samples to write at the tick at (Unix ms); prev is the tick
// before. A series that is not due gives none. news says that every increase is
// to be written, however new the sample before is.
func (r *rollup) next(prev, at int64, news bool, out []RollupSample) []RollupSample {
	if r.floor != nil {
		return out // the store is ahead, see settle
	}
	rest := r.rest(at - prev)
	early := rest > at-prev && at-r.wrote < rest
	if r.dirty {
		if early && !news {
			return out
		}
		if r.wrote < prev && (r.ended || r.wrote < at-rest) {
			out = append(out, RollupSample{Series: r.series, T: prev, Histogram: r.before()})
		}
		return append(out, r.sample(at))
	}
	switch {
	case r.ended || r.wrote == 0:
		return out
	case at-r.fed/1e6 > r.life/1e6:
		return append(out, RollupSample{Series: r.series, T: at})
	case early, r.id.kind == rollupNodeBackend && at-r.wrote < keepAlive:
		return out
	}
	return append(out, r.sample(at))
}

// sample is the value as of the tick at.
func (r *rollup) sample(at int64) RollupSample {
	r.sending = r.cum.native(&r.cum)
	return RollupSample{Series: r.series, T: at, Histogram: r.sending}
}

// before returns the newest value in the store once more, laid out as what follows.
func (r *rollup) before() *histogram.Histogram {
	c := &cumulative{}
	if r.last != nil {
		c, _ = fromNative(r.last)
	}
	return c.native(&r.cum)
}

// sent notes that next's samples are on their way; stored or refused follows.
func (r *rollup) sent() { r.news, r.dirty = r.dirty, false }

// stored notes that they are in the store; stale says that the last was a
// stale marker.
func (r *rollup) stored(at int64, stale bool) {
	if r.wrote, r.ended = at, stale; !stale {
		r.last = r.sending
	}
	r.sending = nil
}

// refused notes that they are not: the next tick tries again.
func (r *rollup) refused() { r.dirty, r.sending = r.dirty || r.news, nil }

// settle brings the series and the store together after a crash, when the
// store has samples that are newer than the checkpoint. Streams go on from the
// checkpoint and tell the increases in between again; until they have, nothing
// is written, so that no counter goes back and nothing counts twice. over says
// that nothing more will be told: what is missing then came from streams that
// have ended, and is taken from the store.
func (r *rollup) settle(over bool) {
	if r.floor == nil {
		return
	}
	told := r.told()
	covered := told.covers(r.floor)
	if !covered && !over {
		return
	}
	if !covered {
		v := r.floor.clone()
		more := told.since(r.floor)
		v.add(&more)
		if r.after != nil {
			v.addCumulative(r.after)
		}
		r.cum = *v
	}
	r.dirty = r.cum.count > r.floor.count
	r.last = r.floor.native(r.floor) // what the store has, not what the checkpoint had
	r.floor, r.after = nil, nil
}
