package activity

import (
	"context"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// ingest is the state of the batch in work. The aggregator's mutex guards it.
type ingest struct {
	scratch scratch
	space   space
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

	pending []*target  // shared targets with something pending
	as      manner     // how it is booked, at the newest point's time
	from    int64      // the earliest start of it, Unix ns; 0 is nothing pending
	spare   []*pending // to use again
	cluster booking    // work space of flush, as is buckets
	buckets []bucket
}

// WriteMetrics takes a batch after attribution: service.instance.id of a
// managed node is its id. Everything but the duration histograms of the two
// dialects is passed over, and so is what the project's own processes send.
func (a *Aggregator) WriteMetrics(_ context.Context, o binnacle.Origin, m *wire.Metrics) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.in.origin = o
	a.in.wall = a.in.now().UnixNano()
	for i := range m.Resources {
		a.resource(&m.Resources[i])
	}
}

func (a *Aggregator) resource(rm *wire.Resource) {
	attrs := rm.Attrs
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
	for i := range rm.Metrics {
		m := &rm.Metrics[i]
		if how, ok := metricOf(m.Name, m.Unit); ok {
			if s := in.sender; !s.managed && !s.info.Gateway && isGateway(service, m.Scope, how) {
				s.info.Gateway = true
				s.forgetTargets()
			}
			a.metric(how, m)
		}
	}
	a.flush()
	if in.newest != 0 {
		in.process.exported(in.newest)
	}
}

// hasDuration tells cheaply whether there is anything to read.
func hasDuration(rm *wire.Resource) bool {
	for i := range rm.Metrics {
		if _, ok := metricOf(rm.Metrics[i].Name, rm.Metrics[i].Unit); ok {
			return true
		}
	}
	return false
}

// senderOf finds or makes the sender of a resource.
func (a *Aggregator) senderOf(attrs wire.Attrs, service string) *sender {
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
func (a *Aggregator) metric(how metric, m *wire.Metric) {
	read, advance := a.readExplicit, a.advance
	switch m.Type {
	case wire.Histogram:
	case wire.Exponential:
		read, advance = a.readExponential, a.advanceExponential
	default:
		a.self.malformed.Inc()
		return
	}
	a.self.points.Add(len(m.Points))
	for i := range m.Points {
		dp := &m.Points[i]
		st := a.in.known(dp)
		switch {
		case dp.NoValue:
			a.self.points.Dec()
		case st != nil && m.Temporality != wire.Delta && advance(how, st, dp):
		case read(how, dp):
			a.point(how, m, dp, st)
		default:
			a.self.points.Dec()
			a.self.malformed.Inc()
		}
	}
}
