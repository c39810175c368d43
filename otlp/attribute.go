package otlp

import (
	"fmt"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
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
func (a *attribution) resource(attrs attributes) (refused string) {
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
func (a *attribution) managedResource(attrs attributes) {
	node := string(a.origin.Node)
	if id, ok := attrs.get(attrServiceInstance); ok && id != node {
		attrs.put(binnacle.AttrProcess, id)
	}
	attrs.put(attrServiceInstance, node)
	attrs.put(binnacle.AttrCluster, string(a.origin.Cluster))
	attrs.put(binnacle.AttrGroup, string(a.origin.Group))
}

// trustedResource adds what the origin says to the process's own data.
func (a *attribution) trustedResource(attrs attributes) {
	set := func(key, value string) {
		if value != "" {
			attrs.put(key, value)
		}
	}
	set(attrServiceInstance, string(a.origin.Node))
	set(binnacle.AttrCluster, string(a.origin.Cluster))
	set(binnacle.AttrGroup, string(a.origin.Group))
}

// unmanagedResource gives a resource without service.instance.id one of its
// service.name and peer address, so that two anonymous senders do not write
// one stream.
func (a *attribution) unmanagedResource(attrs attributes) (refused string) {
	if key := attrs.reserved(); key != "" {
		return fmt.Sprintf("resource attribute %q is reserved: only enrolled nodes have attributes that start with %q", key, binnacle.AttrPrefix)
	}
	if id, ok := attrs.get(attrServiceInstance); ok && id != "" {
		if a.isNode(binnacle.NodeID(id)) {
			return fmt.Sprintf("%s %q is that of an enrolled node: send as that node, to its own agent, or choose another id", attrServiceInstance, id)
		}
		return ""
	}
	name := unknownService
	if v, ok := attrs.get(attrServiceName); ok && v != "" {
		name = v
	}
	if a.origin.Peer.IsValid() {
		name += "@" + a.origin.Peer.Unmap().WithZone("").String()
	}
	attrs.put(attrServiceInstance, name)
	return ""
}

// reservedItem says why an item of an unmanaged sender must go that has the
// reserved key.
func reservedItem(key string) (refused string) {
	return fmt.Sprintf("attribute %q is reserved: only enrolled nodes have attributes that start with %q", key, binnacle.AttrPrefix)
}

// attributes are those of a resource.
type attributes struct{ *wire.Attrs }

// get returns a value as text.
func (a attributes) get(key string) (string, bool) {
	v, ok := a.Get(key)
	if !ok {
		return "", false
	}
	return v.View(), true
}

func (a attributes) put(key, value string) { a.Put(key, value) }

// reserved returns the first key of Binnacle's own namespace, or "".
func (a attributes) reserved() string {
	for _, attr := range *a.Attrs {
		if strings.HasPrefix(attr.Key, binnacle.AttrPrefix) {
			return attr.Key
		}
	}
	return ""
}

// metrics attributes all resources of m and removes what is refused.
func (a *attribution) metrics(m *wire.Metrics) (r Result) {
	unmanaged := !a.trusted && !a.origin.Managed
	m.RemoveResources(func(res *wire.Resource) bool {
		why := a.resource(attributes{&res.Attrs})
		if why != "" {
			r.refuse(res.Points(), why)
			return true
		}
		if unmanaged {
			a.points(res, &r)
		}
		return false
	})
	return r
}

// points removes refused points of an unmanaged sender.
func (a *attribution) points(res *wire.Resource, r *Result) {
	key := res.ReservedKey()
	if key == "" {
		return
	}
	why := reservedItem(key)
	r.refuse(res.RemoveReserved(), why)
}

// traces attributes all resources of t and removes what is refused.
func (a *attribution) traces(t *wire.Traces) (r Result) {
	unmanaged := !a.trusted && !a.origin.Managed
	t.RemoveResources(func(res *wire.ResourceSpans) bool {
		why := a.resource(attributes{&res.Attrs})
		if why != "" {
			r.refuse(res.Spans(), why)
			return true
		}
		if key := res.ReservedKey(); unmanaged && key != "" {
			r.refuse(res.RemoveReserved(), reservedItem(key))
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
