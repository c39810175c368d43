package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// scaleNodes is the size of cluster that one manager has to bear.
const scaleNodes = 5000

// A manager hears of 5,000 nodes that join in a burst, and its memory stays modest.
// The nodes are stubs that speak as much of memberlist's protocol as it takes to be
// alive: they say so, and answer probes.
func TestScale(t *testing.T) {
	a := newAuthority(t)
	id, err := a.ManagerIdentity("m")
	if err != nil {
		t.Fatal(err)
	}
	net, key := newSimNet(1), NewKey()
	stubs := make([]*stubMember, scaleNodes)
	for i := range stubs {
		stubs[i] = newStub(t, net, identity(t, a, binnacle.NodeID(fmt.Sprintf("gw-%04d", i))), key, Label(a.Cluster()), simAddr(2, i+1))
	}
	before := heap()
	managerAddr := simAddr(2, 0)
	var mu sync.Mutex
	told, all := map[binnacle.NodeID]bool{}, make(chan struct{})
	g, err := Start(t.Context(), Options{
		Identity: id, Cluster: a.Cluster(), CAPub: a.PublicKey(), Keys: []api.GossipKey{key},
		OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind != Alive || told[e.Member.ID] {
				return
			}
			if told[e.Member.ID] = true; len(told) == scaleNodes {
				close(all)
			}
		},
		Allow: func(binnacle.NodeID, ed25519.PublicKey) error { return nil }, Manager: true, network: net.host(managerAddr).network,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})

	// All at once; who is not heard says so again, as nodes do.
	begin := time.Now()
	missing, rounds := scaleNodes, 0
	for ; missing > 0 && rounds < 20; rounds++ {
		for _, s := range stubs {
			if !knows(g, binnacle.NodeID(s.name)) {
				s.sayAlive(managerAddr)
			}
		}
		select {
		case <-all:
		case <-time.After(time.Second):
		}
		missing = scaleNodes - len(g.Members())
	}
	dropped := g.count.dropped.Get() + g.count.handoff.Get() + uint64(net.overflow)
	t.Logf("a burst of %d joins: all but %d heard of after %v in %d rounds, %d drops counted", scaleNodes, missing, time.Since(begin).Round(time.Millisecond), rounds, dropped)
	if missing > 0 {
		t.Errorf("%d of %d members are missing", missing, scaleNodes)
	}
	grown := heap() - before
	t.Logf("gossip with %d nodes: %.1f MiB; promised 25", scaleNodes, float64(grown)/(1<<20))
	if grown > 25<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
}

func knows(g *Gossip, id binnacle.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[id].State == Alive
}

// heap returns the bytes in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// stubMember is a member that says that it is alive and answers probes.
type stubMember struct {
	host *simHost
	gcm  cipher.AEAD
	name string
	meta []byte
	auth []byte
}

func newStub(t *testing.T, n *simNet, id pki.Identity, key api.GossipKey, label string, addr netip.AddrPort) *stubMember {
	t.Helper()
	meta, err := sealMetadata(Metadata{Address: netip.AddrPortFrom(addr.Addr(), 8080).String(), Serving: true}, addr, id)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	s := &stubMember{gcm: gcm, name: string(id.ID), meta: meta, auth: []byte(label)}
	s.host = n.stub(addr, s.take)
	return s
}

// Message types of memberlist's protocol.
const (
	wirePing     = 0
	wireAck      = 2
	wireAlive    = 4
	wireCompound = 7
	wireCRC      = 12
)

// take answers the probes in a packet.
func (s *stubMember) take(b []byte, from netip.AddrPort) {
	b, _, err := memberlist.RemoveLabelHeaderFromPacket(b)
	if err != nil || len(b) < 1+12 {
		return
	}
	b, err = s.gcm.Open(nil, b[1:13], b[13:], s.auth)
	if err != nil || len(b) < 2 {
		return
	}
	if b[0] == wireCRC && len(b) > 6 {
		b = b[5:]
	}
	parts := [][]byte{b}
	if b[0] == wireCompound {
		n := int(b[1])
		lengths, rest := b[2:2+2*n], b[2+2*n:]
		parts = parts[:0]
		for i := range n {
			l := int(binary.BigEndian.Uint16(lengths[2*i:]))
			parts, rest = append(parts, rest[:l]), rest[l:]
		}
	}
	for _, p := range parts {
		if _, seq, ok := bytes.Cut(p, []byte("SeqNo")); p[0] == wirePing && ok {
			ack := append([]byte{wireAck, 0x82, 0xa5}, "SeqNo"...)
			ack = append(ack, seq[:wireUintLen(seq[0])]...)
			ack = append(ack, 0xa7)
			s.send(append(append(ack, "Payload"...), 0xa0), from)
		}
	}
}

// wireUintLen is the length of a msgpack unsigned integer by its first byte.
func wireUintLen(b byte) int {
	switch b {
	case 0xcc:
		return 2
	case 0xcd:
		return 3
	case 0xce:
		return 5
	}
	return 1
}

// sayAlive sends the record of this member.
func (s *stubMember) sayAlive(to netip.AddrPort) {
	b := []byte{wireAlive, 0x86}
	str := func(v string) { b = append(append(b, 0xa0|byte(len(v))), v...) }
	raw := func(v []byte) { b = append(append(b, 0xda, byte(len(v)>>8), byte(len(v))), v...) }
	str("Incarnation")
	b = append(b, 1)
	str("Node")
	str(s.name)
	str("Addr")
	raw(s.host.addr.Addr().AsSlice())
	str("Port")
	b = binary.BigEndian.AppendUint16(append(b, 0xcd), s.host.addr.Port())
	str("Meta")
	raw(s.meta)
	str("Vsn")
	raw([]byte{memberlist.ProtocolVersionMin, memberlist.ProtocolVersionMax, memberlist.ProtocolVersion2Compatible, 0, 0, 0})
	s.send(b, to)
}

func (s *stubMember) send(b []byte, to netip.AddrPort) {
	nonce := make([]byte, 12)
	rand.Read(nonce) // never fails
	b = s.gcm.Seal(append([]byte{1}, nonce...), nonce, b, s.auth)
	b, err := memberlist.AddLabelHeaderToPacket(b, string(s.auth))
	if err != nil {
		panic(err)
	}
	if _, err := s.host.WriteTo(b, to.String()); err != nil {
		panic(err)
	}
}
