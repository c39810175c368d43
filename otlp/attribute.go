package otlp

import (
	"fmt"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
)

// This file decides whose data a resource is. The connection outweighs the
// payload: a node's certificate names the node whatever its payload says, and
// a sender without one may neither use the names of Binnacle's own attributes
// nor pass for a node.

// Resource attributes that make up an identity.
//
// Source: OpenTelemetry semantic conventions, "Service".
const (
	attrServiceName     = "service.name"
	attrServiceInstance = "service.instance.id"
	unknownService      = "unknown_service"
)

// attribution is the rule for one sender.
type attribution struct {
	origin  binnacle.Origin
	trusted bool // the process itself
	isNode  func(binnacle.NodeID) bool
}

// resource attributes one resource. It returns "" or the reason why all of the
// resource is refused; then it has not changed it.
func (a *attribution) resource(attrs pcommon.Map) (refused string) {
	switch {
	case a.trusted:
		a.trustedResource(attrs)
	case a.origin.Managed:
		a.managedResource(attrs)
	default:
		return a.unmanagedResource(attrs)
	}
	return ""
}

// managedResource sets the identity that the certificate proves. The sender's
// own instance id, one per process, is kept as binnacle.process: two processes
// of one node, a draining worker and its successor, must not write one stream.
func (a *attribution) managedResource(attrs pcommon.Map) {
	node := string(a.origin.Node)
	if own, ok := attrs.Get(attrServiceInstance); ok {
		if id := own.AsString(); id != node {
			attrs.PutStr(binnacle.AttrProcess, id)
		}
	}
	attrs.PutStr(attrServiceInstance, node)
	attrs.PutStr(binnacle.AttrCluster, string(a.origin.Cluster))
	attrs.PutStr(binnacle.AttrGroup, string(a.origin.Group))
}

// trustedResource adds what the origin says to the process's own data.
func (a *attribution) trustedResource(attrs pcommon.Map) {
	set := func(key, value string) {
		if value != "" {
			attrs.PutStr(key, value)
		}
	}
	set(attrServiceInstance, string(a.origin.Node))
	set(binnacle.AttrCluster, string(a.origin.Cluster))
	set(binnacle.AttrGroup, string(a.origin.Group))
}

// unmanagedResource gives a resource without service.instance.id one of its
// service.name and peer address, so that two anonymous senders do not write
// one stream.
func (a *attribution) unmanagedResource(attrs pcommon.Map) (refused string) {
	if key := reservedKey(attrs); key != "" {
		return fmt.Sprintf("resource attribute %q is reserved: only enrolled nodes have attributes that start with %q", key, binnacle.AttrPrefix)
	}
	if own, ok := attrs.Get(attrServiceInstance); ok && own.AsString() != "" {
		id := own.AsString()
		if a.isNode(binnacle.NodeID(id)) {
			return fmt.Sprintf("%s %q is that of an enrolled node: send as that node, to its own agent, or choose another id", attrServiceInstance, id)
		}
		return ""
	}
	name := unknownService
	if v, ok := attrs.Get(attrServiceName); ok && v.AsString() != "" {
		name = v.AsString()
	}
	if a.origin.Peer.IsValid() {
		name += "@" + a.origin.Peer.Unmap().WithZone("").String()
	}
	attrs.PutStr(attrServiceInstance, name)
	return ""
}

// reservedKey returns the first key of Binnacle's own namespace, or "".
func reservedKey(attrs pcommon.Map) string {
	for k := range attrs.All() {
		if strings.HasPrefix(k, binnacle.AttrPrefix) {
			return k
		}
	}
	return ""
}

// reservedItem says whether a span or point of this sender must go because of
// its attributes.
func (a *attribution) reservedItem(attrs pcommon.Map) (refused string) {
	if a.trusted || a.origin.Managed {
		return ""
	}
	if key := reservedKey(attrs); key != "" {
		return fmt.Sprintf("attribute %q is reserved: only enrolled nodes have attributes that start with %q", key, binnacle.AttrPrefix)
	}
	return ""
}

// metrics attributes all resources of md and removes what is refused.
func (a *attribution) metrics(md pmetric.Metrics) (r Result) {
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		why := a.resource(rm.Resource().Attributes())
		if why != "" {
			r.refuse(pointsOf(rm), why)
			return true
		}
		if !a.trusted && !a.origin.Managed {
			a.points(rm, &r)
		}
		return false
	})
	return r
}

// points removes refused points of an unmanaged sender.
func (a *attribution) points(rm pmetric.ResourceMetrics, r *Result) {
	bad := func(attrs pcommon.Map) bool {
		why := a.reservedItem(attrs)
		if why != "" {
			r.refuse(1, why)
		}
		return why != ""
	}
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeGauge:
				m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return bad(p.Attributes()) })
			case pmetric.MetricTypeSum:
				m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return bad(p.Attributes()) })
			case pmetric.MetricTypeHistogram:
				m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool { return bad(p.Attributes()) })
			case pmetric.MetricTypeExponentialHistogram:
				m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool { return bad(p.Attributes()) })
			case pmetric.MetricTypeSummary:
				m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool { return bad(p.Attributes()) })
			}
		}
	}
}

// traces attributes all resources of td and removes what is refused.
func (a *attribution) traces(td ptrace.Traces) (r Result) {
	td.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
		if why := a.resource(rs.Resource().Attributes()); why != "" {
			r.refuse(spansOf(rs), why)
			return true
		}
		if a.trusted || a.origin.Managed {
			return false
		}
		for _, ss := range rs.ScopeSpans().All() {
			ss.Spans().RemoveIf(func(sp ptrace.Span) bool {
				why := a.reservedItem(sp.Attributes())
				if why != "" {
					r.refuse(1, why)
				}
				return why != ""
			})
		}
		return false
	})
	return r
}

// refuse books n refused items; the first reason is kept for each batch.
func (r *Result) refuse(n int, why string) {
	r.Rejected += n
	if r.Message == "" {
		r.Message = why
	}
}

func pointsOf(rm pmetric.ResourceMetrics) (n int) {
	for _, sm := range rm.ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeGauge:
				n += m.Gauge().DataPoints().Len()
			case pmetric.MetricTypeSum:
				n += m.Sum().DataPoints().Len()
			case pmetric.MetricTypeHistogram:
				n += m.Histogram().DataPoints().Len()
			case pmetric.MetricTypeExponentialHistogram:
				n += m.ExponentialHistogram().DataPoints().Len()
			case pmetric.MetricTypeSummary:
				n += m.Summary().DataPoints().Len()
			}
		}
	}
	return n
}

func spansOf(rs ptrace.ResourceSpans) (n int) {
	for _, ss := range rs.ScopeSpans().All() {
		n += ss.Spans().Len()
	}
	return n
}
