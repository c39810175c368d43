package activity

import (
	"context"
	"math"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
)

// ingest is the state of the batch in work. The aggregator's mutex guards it.
type ingest struct {
	scratch scratch
	space   dense
	buf     []byte
	cur     point
	counts  []uint64

	origin  binnacle.Origin
	now     func() time.Time
	wall    int64 // now, Unix ns
	sender  *sender
	process *process
	procID  string
	newest  int64 // newest point time of the resource
	began   int64 // the process's newest point before this batch

	pending []*key     // keys with a booking
	spare   []*booking // bookings to use again
	at      int64      // time of the points in pending
	from    int64      // and the earliest start of their increases
}

// WriteMetrics takes a batch after attribution: service.instance.id of a
// managed node is its id. Everything but the duration histograms of the two
// dialects is passed over, and so is what the project's own processes send.
func (a *Aggregator) WriteMetrics(_ context.Context, o binnacle.Origin, md pmetric.Metrics) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.in.origin = o
	a.in.wall = a.in.now().UnixNano()
	for _, rm := range md.ResourceMetrics().All() {
		a.resource(rm)
	}
}

func (a *Aggregator) resource(rm pmetric.ResourceMetrics) {
	attrs := rm.Resource().Attributes()
	service := strAttr(attrs, "service.name")
	if service == binnacle.ServiceAgent || service == binnacle.ServiceManager || !hasDuration(rm) {
		return
	}
	in := &a.in
	in.sender = a.senderOf(attrs, service)
	in.procID = service + "\x00" + strAttr(attrs, binnacle.AttrProcess)
	in.process = in.sender.processes[in.procID]
	if in.process == nil {
		in.process = &process{}
		in.sender.processes[in.procID] = in.process
	}
	in.newest, in.began = 0, in.process.last
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			if how, ok := metricOf(m.Name(), m.Unit()); ok {
				if s := in.sender; !s.managed && !s.info.Gateway && isGateway(service, sm.Scope().Name(), how) {
					s.info.Gateway = true
					s.forgetTargets()
				}
				a.metric(how, sm.Scope().Name(), m)
			}
		}
	}
	a.flush()
	if in.newest != 0 {
		in.process.exported(in.newest)
	}
}

// hasDuration tells cheaply whether there is anything to read.
func hasDuration(rm pmetric.ResourceMetrics) bool {
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			if _, ok := metricOf(m.Name(), m.Unit()); ok {
				return true
			}
		}
	}
	return false
}

// senderOf finds or makes the sender of a resource.
func (a *Aggregator) senderOf(attrs pcommon.Map, service string) *sender {
	o := &a.in.origin
	id := o.Node
	if !o.Managed {
		id = binnacle.NodeID(strAttr(attrs, "service.instance.id"))
		if id == "" {
			id = binnacle.NodeID(service + "@" + o.Peer.String())
		}
	}
	s := a.senders[id]
	if s == nil || s.managed != o.Managed {
		if s != nil { // enrolled since: what it counted as a stranger is not its own
			a.streams -= len(s.streams)
		}
		s = &sender{id: id, managed: o.Managed, processes: map[string]*process{}, streams: map[uint64]*stream{}}
		a.senders[id] = s
	}
	if s.group != o.Group || s.targets == nil {
		s.group = o.Group
		s.forgetTargets()
	}
	s.info.LastSeen = time.Unix(0, a.in.wall).UTC()
	if !s.managed {
		s.info.ID, s.info.Service, s.info.Version = id, service, strAttr(attrs, "service.version")
		if o.Peer.IsValid() {
			s.info.Peer = o.Peer.String()
		}
	}
	return s
}

// metric takes the points of one histogram.
func (a *Aggregator) metric(how metric, scope string, m pmetric.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeHistogram:
		h := m.Histogram()
		delta := h.AggregationTemporality() == pmetric.AggregationTemporalityDelta
		for _, dp := range h.DataPoints().All() {
			if dp.Flags().NoRecordedValue() {
				continue
			}
			if !a.readExplicit(how, dp) {
				a.self.malformed.Inc()
				continue
			}
			a.point(how, scope, m.Name(), dp.Attributes(), delta)
		}
	case pmetric.MetricTypeExponentialHistogram:
		h := m.ExponentialHistogram()
		delta := h.AggregationTemporality() == pmetric.AggregationTemporalityDelta
		for _, dp := range h.DataPoints().All() {
			if dp.Flags().NoRecordedValue() {
				continue
			}
			if !a.readExponential(how, dp) {
				a.self.malformed.Inc()
				continue
			}
			a.point(how, scope, m.Name(), dp.Attributes(), delta)
		}
	default:
		a.self.malformed.Inc()
	}
}

// readExplicit reads a point into in.cur; false is a malformed one.
func (a *Aggregator) readExplicit(how metric, dp pmetric.HistogramDataPoint) bool {
	in := &a.in
	upper, counts := dp.ExplicitBounds(), dp.BucketCounts()
	in.counts = in.counts[:0]
	switch {
	case counts.Len() == 0: // sum and count only
		in.counts = append(in.counts, dp.Count())
		upper = pcommon.NewFloat64Slice()
	case counts.Len() != upper.Len()+1:
		return false
	default:
		for i := range counts.Len() {
			in.counts = append(in.counts, counts.At(i))
		}
	}
	b, ok := a.layouts.get(upper.Len(), upper.At, how.factor)
	if !ok {
		return false
	}
	in.cur = point{n: in.counts, bounds: b, sum: seconds(dp.Sum(), how.factor)}
	in.times(dp.StartTimestamp(), dp.Timestamp())
	return true
}

// maxBuckets bounds an exponential point. SDKs use at most 160; 20 octaves at
// the finest scale that is read are 2^20 * 20, which nobody means.
const maxBuckets = 1 << 16

// minScale is the coarsest scale that is read: one bucket for 2^1024.
const minScale = -10

// readExponential reads a point into in.cur; false is a malformed one.
// Negative observations, which durations cannot have, count as none at all
// long.
func (a *Aggregator) readExponential(how metric, dp pmetric.ExponentialHistogramDataPoint) bool {
	in := &a.in
	exp, offset := int(dp.Scale()), int(dp.Positive().Offset())
	n := dp.Positive().BucketCounts()
	if exp < minScale || exp > 20 || n.Len() > maxBuckets {
		return false
	}
	p := point{zero: dp.ZeroCount(), sum: seconds(dp.Sum(), how.factor)}
	for _, c := range dp.Negative().BucketCounts().All() {
		p.zero += c
	}
	shift := max(0, exp-scale)
	first := offset >> shift
	in.counts = in.counts[:0]
	for j, c := range n.All() {
		at := (offset+j)>>shift - first
		for len(in.counts) <= at {
			in.counts = append(in.counts, 0)
		}
		in.counts[at] += c
	}
	p.n, p.exp = in.counts, int8(min(exp, scale))
	if how.factor != 1 && p.exp == scale {
		// Milliseconds: 2^(-80/8) is 1/1024, so that a bucket moves by 2.4 %.
		first -= 80
	}
	if first < math.MinInt32 || first > math.MaxInt32-maxBuckets {
		return false
	}
	p.offset = int32(first)
	in.cur = p
	in.times(dp.StartTimestamp(), dp.Timestamp())
	return true
}

// seconds brings a sum into seconds; what is no number is none.
func seconds(sum, factor float64) float64 {
	if math.IsNaN(sum) || math.IsInf(sum, 0) || sum < 0 {
		return 0
	}
	return sum * factor
}

// times sets the point's times. One of the future is of a clock that is ahead.
func (in *ingest) times(start, t pcommon.Timestamp) {
	in.cur.start = int64(min(start, math.MaxInt64))
	in.cur.t = int64(min(t, math.MaxInt64))
	if in.cur.t == 0 || in.cur.t > in.wall {
		in.cur.t = in.wall
	}
	in.cur.start = min(in.cur.start, in.cur.t)
}

// point books in.cur.
func (a *Aggregator) point(how metric, scope, name string, attrs pcommon.Map, delta bool) {
	in := &a.in
	a.self.points.Inc()
	// A stream that changes its kind or temporality is another stream.
	form := byte(0)
	if in.cur.bounds == nil {
		form |= 1
	}
	if delta {
		form |= 2
	}
	var hash uint64
	hash, in.buf = streamHash(in.procID, scope, name, form, attrs, in.buf)
	st, known := in.sender.streams[hash], true
	if st == nil {
		if len(in.sender.streams) >= a.o.MaxStreamsPerSender || a.streams >= a.o.MaxStreams {
			a.self.overStreams.Inc()
			return
		}
		st, known = &stream{}, false
		in.sender.streams[hash] = st
		a.streams++
	}
	if st.place == nil {
		p := placeOf(how, attrs)
		st.place = &p
	}
	if st.target == nil || st.revision != in.origin.Revision {
		st.target, st.revision = a.target(*st.place), in.origin.Revision
	}
	a.fed(st.target)
	var inc increase
	var from int64
	if delta {
		if !st.newDelta(in.cur.t) {
			a.self.verdicts[duplicate].Inc()
			return
		}
		inc, _ = subtract(nil, &in.cur, &in.scratch)
		if from = in.cur.start; from == 0 {
			from = max(in.began, st.t)
		}
		st.t = max(st.t, in.cur.t)
	} else {
		var v verdict
		inc, from, v = a.cumulative(st, known)
		if v > reset {
			a.self.verdicts[v].Inc()
			return
		}
		if v == reset {
			a.self.verdicts[reset].Inc()
		}
	}
	in.newest = max(in.newest, in.cur.t)
	if inc.count > 0 {
		a.increase(st.target, &inc, from)
	}
}

// newDelta reports whether the delta point of time t was not seen, and notes it.
func (st *stream) newDelta(t int64) bool {
	oldest := 0
	for i, s := range st.seen {
		if s == t {
			return false
		}
		if s < st.seen[oldest] {
			oldest = i
		}
	}
	if t < st.seen[oldest] && st.seen[oldest] != 0 {
		return false // older than what is remembered: it may have been seen
	}
	st.seen[oldest] = t
	return true
}

// cumulative takes in.cur as the next point of a cumulative stream and returns
// what happened since from.
func (a *Aggregator) cumulative(st *stream, known bool) (inc increase, from int64, v verdict) {
	in := &a.in
	cur := &in.cur
	if !known {
		// All of a new stream's counts are since its start, and not before the
		// process's last export, or the stream would have been in it.
		inc, _ = subtract(nil, cur, &in.scratch)
		from = max(cur.start, in.began)
		if in.began == 0 {
			from = a.firstFrom(cur)
		}
	} else {
		var grown bool
		inc, grown = subtract(&st.point, cur, &in.scratch)
		v = judge(&st.point, cur, grown)
		from = st.t
		switch v {
		case next:
		case reset:
			inc, _ = subtract(nil, cur, &in.scratch)
			from = max(cur.start, st.t)
		default:
			return inc, 0, v
		}
	}
	keep := st.n
	st.point = *cur
	st.n = append(keep[:0], cur.n...)
	return inc, from, v
}

// firstFrom returns since when the counts of a process's first point are. A
// process exports nothing of requests before it has had one, so that its
// start says little: a node that was idle for an hour would have its first ten
// seconds of traffic taken for an outage. But a managed node's exports come
// whole and in order, from the agent's spool if need be, so that a first point
// holds one interval, unless the process may have been heard by an earlier
// life of this manager.
func (a *Aggregator) firstFrom(p *point) int64 {
	live := max(p.start, p.t-int64(rollupStep))
	started := a.started.UnixNano()
	switch {
	case !a.in.sender.managed:
		return p.start
	case p.start >= started:
		return live
	case a.restored == 0: // what was heard before is not known
		return p.start
	case p.t-started < minLimit: // it may have begun after the checkpoint
		return max(p.start, a.restored)
	}
	return live
}

// target resolves where the increases of a place go, now.
func (a *Aggregator) target(p place) *target {
	in := &a.in
	s := in.sender
	id := targetID{p, in.origin.Revision}
	if t := s.targets[id]; t != nil {
		return t
	}
	t := &target{outcome: p.outcome}
	key := func(id keyID) {
		if k := a.keyOf(id); k != nil {
			t.keys = append(t.keys, k)
		}
	}
	base := rollupID{outcome: p.outcome, managed: s.managed, group: s.group, revision: in.origin.Revision}
	if !s.managed {
		base.group, base.revision = "", 0
	}
	rollup := func(kd rollupKind, set func(*rollupID)) {
		id := base
		id.kind = kd
		set(&id)
		if r := a.rollupOf(id); r != nil {
			t.rollups = append(t.rollups, r)
		}
	}
	gateway := s.managed || s.info.Gateway
	switch {
	case !p.client:
		key(keyID{kind: kindNode, node: s.id})
		rollup(rollupNode, func(id *rollupID) { id.node = s.id })
		if !gateway {
			break
		}
		key(keyID{kind: kindCluster})
		key(keyID{kind: kindGroup, group: base.group})
		key(keyID{kind: kindEndpoint, group: base.group, method: p.method, route: p.route})
		if s.managed {
			key(keyID{kind: kindRevision, group: base.group, revision: base.revision})
		}
		rollup(rollupGroup, func(*rollupID) {})
		rollup(rollupEndpoint, func(id *rollupID) { id.method, id.route = p.method, p.route })
	case gateway && p.address != "":
		b := p.backend()
		a.endpoints.add(b, p.endpoint)
		key(keyID{kind: kindBackend, backend: b})
		key(keyID{kind: kindNodeBackend, node: s.id, backend: b})
		rollup(rollupBackend, func(id *rollupID) { id.address, id.port = p.address, p.port })
		rollup(rollupNodeBackend, func(id *rollupID) { id.address, id.port, id.node = p.address, p.port, s.id })
	}
	s.targets[id] = t
	return t
}

// keyOf finds or makes a key; nil when there are too many.
func (a *Aggregator) keyOf(id keyID) *key {
	k := a.keys.get(id)
	if k == nil {
		if len(a.keys.byID) >= a.o.MaxKeys {
			a.self.overKeys.Inc()
			return nil
		}
		k = a.keys.make(id)
	}
	return k
}

// rollupsPerKey bounds the roll-up series by MaxKeys: outcomes times the
// revisions of a week.
const rollupsPerKey = 8

// rollupOf finds or makes a roll-up; nil when there are too many.
func (a *Aggregator) rollupOf(id rollupID) *rollup {
	r := a.rollups[id]
	if r == nil {
		if len(a.rollups) >= rollupsPerKey*a.o.MaxKeys {
			a.self.overKeys.Inc()
			return nil
		}
		r = &rollup{id: id, series: &RollupSeries{Labels: id.labels()}}
		a.rollups[id] = r
	}
	return r
}

// fed notes that a stream fed its target, increase or not.
func (a *Aggregator) fed(t *target) {
	at := a.in.cur.t
	if t.fed == at {
		return
	}
	t.fed = at
	for _, k := range t.keys {
		k.touch(at)
	}
	life := a.in.process.limit(a.in.sender.managed)
	for _, r := range t.rollups {
		r.fed = max(r.fed, at)
		r.life = life
	}
}

// increase books what happened between from and in.cur.t.
func (a *Aggregator) increase(t *target, inc *increase, from int64) {
	in := &a.in
	for _, k := range t.keys {
		k.total += inc.count
	}
	limit := in.process.limit(in.sender.managed)
	if in.cur.t-from > limit || from == 0 {
		a.self.gapRequests.Add(int(inc.count))
		return
	}
	if in.at != 0 && slotOf(in.at, fineStep) != slotOf(in.cur.t, fineStep) {
		a.flush()
	}
	if in.at == 0 {
		in.from = from
	}
	in.at, in.from = max(in.at, in.cur.t), min(in.from, from)
	for _, k := range t.keys {
		if k.pending == nil {
			k.pending = in.booking()
			in.pending = append(in.pending, k)
		}
		k.pending.add(t.outcome, inc)
	}
	if in.wall-in.cur.t > limit {
		// It is of the past: the windows know where to put it, a counter that
		// is written now does not.
		a.self.late.Add(int(inc.count))
		return
	}
	fresh := from >= a.started.UnixNano()
	for _, r := range t.rollups {
		r.add(inc, fresh, a.settling)
	}
}

func (in *ingest) booking() *booking {
	if n := len(in.spare); n > 0 {
		b := in.spare[n-1]
		in.spare = in.spare[:n-1]
		return b
	}
	b := &booking{}
	b.reset()
	return b
}

// flush books what is pending in the keys' slots.
func (a *Aggregator) flush() {
	in := &a.in
	now := in.wall / int64(time.Second)
	for _, k := range in.pending {
		k.book(k.pending, in.at, now, &in.space)
		if k.id.kind == kindCluster {
			a.chart.book(k.pending, in.from, in.at, now)
		}
		k.pending.reset()
		in.spare = append(in.spare, k.pending)
		k.pending = nil
	}
	in.pending, in.at, in.from = in.pending[:0], 0, 0
}
