package traces

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// TestPageCache fills the memtables, whose memory Pebble takes out of its cache,
// and wants a second search to read pages of the index from what is left.
func TestPageCache(t *testing.T) {
	s, now := newStore(t)
	r := rand.New(rand.NewPCG(1, 2))
	write(t, s, gatewayTraces(r, 700, base))
	flush(t, s)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	// Beside the hours that are searched.
	for i := range uint32(memTables * memTable >> 20) {
		v := make([]byte, 1<<20)
		for j := range v {
			v[j] = byte(r.Uint32())
		}
		if err := s.db.Set(seqKey(1, kindBlock, i), v, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	search := func() {
		t.Helper()
		q := Query{Service: "binnacle-gateway", Tags: map[string]string{"client.address": "nobody's"}, Start: base, End: now.Add(1 << 40)}
		if found, err := s.Search(t.Context(), q); err != nil || len(found) != 0 {
			t.Fatalf("got %d traces, %v; want none", len(found), err)
		}
	}
	search()
	before := s.db.Metrics().BlockCache.Hits
	search()
	if m := s.db.Metrics(); m.BlockCache.Hits == before || m.MemTable.Size < memTable {
		t.Errorf("a second search: %d hits more, with %d bytes of memtables and %d of cache", m.BlockCache.Hits-before, m.MemTable.Size, m.BlockCache.Size)
	}
}
