package membership

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The names that discovery by DNS answers, below the zone (binnacle. by default):
//
//	nodes.ZONE              A, AAAA   every node in traffic
//	_http._tcp.nodes.ZONE   SRV       the same with their ports
//	GROUP.nodes.ZONE, _http._tcp.GROUP.nodes.ZONE   those of one group
//	ID.node.ZONE            A, AAAA   one node: what the SRV records name
//
// Records live for the TTL only and their order is dealt anew for each answer.
// A name of this form without a node has no records; it is no error, so that a
// resolver does not remember it as one.

// answer makes the answer to a query from the list of nodes. It depends on
// nothing else but dice for the order.
func (d *DNS) answer(q *dns.Msg, nodes []dnsNode) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	a.Authoritative = true
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		a.Rcode = dns.RcodeNotImplemented
		return a
	}
	if opt := q.IsEdns0(); opt != nil {
		a.SetEdns0(maxDNSPacket, false)
	}
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	if question.Qclass != dns.ClassINET || !dns.IsSubDomain(d.zone, name) {
		a.Authoritative = false
		a.Rcode = dns.RcodeRefused
		return a
	}
	if question.Qtype == dns.TypeANY || question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR {
		a.Rcode = dns.RcodeRefused
		return a
	}
	below := strings.TrimSuffix(strings.TrimSuffix(name, d.zone), ".")
	want := askedFor(below)
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: t, Class: dns.ClassINET, Ttl: uint32(d.o.TTL / time.Second)}
	}
	switch {
	case below == "" && question.Qtype == dns.TypeSOA:
		a.Answer = []dns.RR{d.soa()}
		return a
	case below == "":
	case !want.known:
		a.Rcode = dns.RcodeNameError
	default:
		for _, n := range pick(nodes, want) {
			if want.srv != (question.Qtype == dns.TypeSRV) {
				continue
			}
			if want.srv {
				a.Answer = append(a.Answer, &dns.SRV{Hdr: header(dns.TypeSRV), Weight: 1, Port: n.port, Target: d.target(n)})
				a.Extra = append(a.Extra, d.glue(n)...)
				continue
			}
			a.Answer = append(a.Answer, addresses(n, question.Qtype, header)...)
		}
	}
	if len(a.Answer) == 0 {
		a.Ns = []dns.RR{d.soa()}
	}
	return a
}

// asked is what a name asks for.
type asked struct {
	known bool
	srv   bool
	group string // empty: all
	id    string // of one node
}

// askedFor reads the part of a name below the zone.
func askedFor(below string) asked {
	if rest, ok := strings.CutPrefix(below, "_http._tcp."); ok {
		a := askedFor(rest)
		a.known = a.known && a.id == "" && !a.srv
		a.srv = true
		return a
	}
	if id, ok := strings.CutSuffix(below, ".node"); ok {
		return asked{known: id != "" && !strings.Contains(id, "."), id: id}
	}
	if below == "nodes" {
		return asked{known: true}
	}
	if group, ok := strings.CutSuffix(below, ".nodes"); ok {
		return asked{known: group != "", group: group}
	}
	return asked{}
}

// pick returns the nodes asked for in an order of its own.
func pick(nodes []dnsNode, want asked) []dnsNode {
	out := slices.DeleteFunc(slices.Clone(nodes), func(n dnsNode) bool {
		return want.id != "" && n.id != want.id || want.group != "" && n.group != want.group
	})
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// target is what an SRV record names: the node's own name in the zone or, where
// the node has a name of its own, that.
func (d *DNS) target(n dnsNode) string {
	if n.host != "" {
		return n.host
	}
	return n.id + ".node." + d.zone
}

// glue gives the addresses that go with an SRV record.
func (d *DNS) glue(n dnsNode) []dns.RR {
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: d.target(n), Rrtype: t, Class: dns.ClassINET, Ttl: uint32(d.o.TTL / time.Second)}
	}
	return append(addresses(n, dns.TypeA, header), addresses(n, dns.TypeAAAA, header)...)
}

func addresses(n dnsNode, t uint16, header func(uint16) dns.RR_Header) []dns.RR {
	var out []dns.RR
	for _, ip := range n.addrs {
		switch {
		case t == dns.TypeA && ip.Is4():
			out = append(out, &dns.A{Hdr: header(t), A: ip.AsSlice()})
		case t == dns.TypeAAAA && ip.Is6():
			out = append(out, &dns.AAAA{Hdr: header(t), AAAA: ip.AsSlice()})
		}
	}
	return out
}

// soa says who answers, and that what is not there may be there in a second.
func (d *DNS) soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: d.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
		Ns:  "manager." + d.zone, Mbox: "nobody." + d.zone,
		Serial: 1, Refresh: 60, Retry: 10, Expire: 600, Minttl: 1,
	}
}
