package membership

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

var dnsTestNodes = []api.Node{
	{ID: "n-1", Group: "default", Address: "10.0.0.1:8080"},
	{ID: "n-2", Group: "default", Address: "[2001:db8::2]:8081"},
	{ID: "n-3", Group: "eu.west", Address: "gw.example.com:80"},
	{ID: "n-4", Group: "default", Address: "no address"},
}

func startDNS(t *testing.T, nodes func() []api.Node) *DNS {
	t.Helper()
	d, err := ListenDNS("127.0.0.1:0", DNSOptions{Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDNS(t *testing.T) {
	d := startDNS(t, func() []api.Node { return dnsTestNodes })
	ask := func(network, name string, qtype uint16, change func(*dns.Msg)) *dns.Msg {
		t.Helper()
		q := new(dns.Msg).SetQuestion(name, qtype)
		if change != nil {
			change(q)
		}
		a, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(q, d.Addr())
		if err != nil {
			t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
		}
		return a
	}
	f := func(name string, qtype uint16, rcode int, want ...string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			a := ask(network, name, qtype, nil)
			got := map[string]bool{}
			for _, rr := range a.Answer {
				got[strings.Join(strings.Fields(rr.String())[1:], " ")] = true
			}
			ok := a.Rcode == rcode && len(got) == len(want) && len(a.Answer) == len(want)
			for _, w := range want {
				ok = ok && got[w]
			}
			if !ok {
				t.Errorf("%s %s over %s: got %s %v; want %s %v", name, dns.TypeToString[qtype], network, dns.RcodeToString[a.Rcode], got, dns.RcodeToString[rcode], want)
			}
			if rcode == dns.RcodeSuccess && len(want) == 0 && len(a.Ns) != 1 {
				t.Errorf("%s %s: nothing without an SOA", name, dns.TypeToString[qtype])
			}
		}
	}
	f("nodes.binnacle.", dns.TypeA, dns.RcodeSuccess, "5 IN A 10.0.0.1")
	f("NODES.Binnacle.", dns.TypeA, dns.RcodeSuccess, "5 IN A 10.0.0.1")
	f("nodes.binnacle.", dns.TypeAAAA, dns.RcodeSuccess, "5 IN AAAA 2001:db8::2")
	f("default.nodes.binnacle.", dns.TypeA, dns.RcodeSuccess, "5 IN A 10.0.0.1")
	f("_http._tcp.nodes.binnacle.", dns.TypeSRV, dns.RcodeSuccess,
		"5 IN SRV 0 1 8080 n-1.node.binnacle.", "5 IN SRV 0 1 8081 n-2.node.binnacle.", "5 IN SRV 0 1 80 gw.example.com.")
	f("_http._tcp.eu.west.nodes.binnacle.", dns.TypeSRV, dns.RcodeSuccess, "5 IN SRV 0 1 80 gw.example.com.")
	f("n-1.node.binnacle.", dns.TypeA, dns.RcodeSuccess, "5 IN A 10.0.0.1")
	f("n-1.node.binnacle.", dns.TypeTXT, dns.RcodeSuccess)
	f("n-9.node.binnacle.", dns.TypeA, dns.RcodeSuccess)
	f("none.nodes.binnacle.", dns.TypeA, dns.RcodeSuccess)
	f("_http._tcp.nodes.binnacle.", dns.TypeA, dns.RcodeSuccess)
	f("nodes.binnacle.", dns.TypeSRV, dns.RcodeSuccess)
	f("binnacle.", dns.TypeA, dns.RcodeSuccess)
	f("binnacle.", dns.TypeSOA, dns.RcodeSuccess, "1 IN SOA manager.binnacle. nobody.binnacle. 1 60 10 600 1")
	f("other.binnacle.", dns.TypeA, dns.RcodeNameError)
	f("_http._tcp.n-1.node.binnacle.", dns.TypeSRV, dns.RcodeNameError)
	f("_http._tcp._http._tcp.nodes.binnacle.", dns.TypeSRV, dns.RcodeNameError)
	f("example.com.", dns.TypeA, dns.RcodeRefused)
	f("notbinnacle.", dns.TypeA, dns.RcodeRefused)
	f("nodes.binnacle.", dns.TypeANY, dns.RcodeRefused)

	if a := ask("udp", "_http._tcp.default.nodes.binnacle.", dns.TypeSRV, nil); len(a.Extra) != 2 || !a.Authoritative {
		t.Errorf("SRV of the group: got extra %v; want both addresses", a.Extra)
	}
}

// A long answer is cut over UDP, is whole over TCP, and is whole over UDP for
// who asks for more.
func TestDNSLongAnswers(t *testing.T) {
	var nodes []api.Node
	for i := range 100 {
		nodes = append(nodes, api.Node{ID: binnacle.NodeID(fmt.Sprintf("n-%d", i)), Group: "default", Address: fmt.Sprintf("10.0.1.%d:8080", i)})
	}
	d := startDNS(t, func() []api.Node { return nodes })
	f := func(network string, size uint16, cut bool) {
		q := new(dns.Msg).SetQuestion("_http._tcp.nodes.binnacle.", dns.TypeSRV)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		a, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(q, d.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if a.Truncated != cut || !cut && len(a.Answer) != len(nodes) || len(a.Answer) == 0 {
			t.Errorf("%s, %d bytes: got %d answers, cut %v; want %d, cut %v", network, size, len(a.Answer), a.Truncated, len(nodes), cut)
		}
	}
	f("udp", 0, true)
	f("udp", 1232, true)
	f("udp", 8192, false)
	f("tcp", 0, false)
}

func TestListenDNSRefuses(t *testing.T) {
	d := startDNS(t, func() []api.Node { return nil })
	for what, f := range map[string]func() (*DNS, error){
		"a port in use": func() (*DNS, error) { return ListenDNS(d.Addr(), DNSOptions{}) },
		"a bad zone":    func() (*DNS, error) { return ListenDNS("127.0.0.1:0", DNSOptions{Zone: "a..b"}) },
	} {
		if other, err := f(); err == nil {
			t.Errorf("%s: listens", what)
			other.Close()
		}
	}
}

// No query makes the answer fail, or one that does not pack.
func FuzzDNS(f *testing.F) {
	for _, name := range []string{"nodes.binnacle.", "_http._tcp.eu.west.nodes.binnacle.", "n-1.node.binnacle.", "binnacle.", "example.com."} {
		for _, t := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeANY} {
			b, err := new(dns.Msg).SetQuestion(name, t).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	d := &DNS{zone: defaultDNSZone, o: DNSOptions{TTL: defaultDNSTTL}}
	nodes := dnsNodes(dnsTestNodes)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return // the server refuses it before us
		}
		a := d.answer(q, nodes)
		a.Truncate(dns.MinMsgSize)
		if _, err := a.Pack(); err != nil {
			t.Fatalf("answer to %x does not pack: %v", b, err)
		}
	})
}
