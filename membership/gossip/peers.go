package gossip

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

const (
	// peerLife is how long a peer is remembered that was not heard of: over a
	// long weekend.
	peerLife = 7 * 24 * time.Hour
	// maxPeers bounds the book; the longest unheard go first.
	maxPeers = 10_000
	// savePeersEvery is the least time between two writes of the file, which
	// is a help and no truth: a crash may lose the last changes.
	savePeersEvery = 30 * time.Second
	// maxPeersFile bounds what is read of a peers file, some 100 bytes a peer.
	maxPeersFile = 4 << 20
)

// peer is one remembered member.
type peer struct {
	ID   binnacle.NodeID `json:"id"`
	Addr netip.AddrPort  `json:"addr"`
	Seen time.Time       `json:"seen"`
}

// peerBook remembers where members were, over restarts.
type peerBook struct {
	path string // empty: not kept
	log  *slog.Logger

	mu    sync.Mutex // guards what follows
	peers map[binnacle.NodeID]peer
	dirty bool
	saved time.Time
}

type peersFile struct {
	Peers []peer `json:"peers"`
}

// openPeerBook reads the file at path. One that is missing or damaged begins an
// empty book.
func openPeerBook(path string, log *slog.Logger) *peerBook {
	b := &peerBook{path: path, log: log, peers: make(map[binnacle.NodeID]peer)}
	if path == "" {
		return b
	}
	content, err := os.ReadFile(path)
	if err == nil {
		var peers []peer
		if peers, err = parsePeers(content, time.Now()); err == nil {
			for _, p := range peers {
				b.peers[p.ID] = p
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the remembered gossip peers are lost; seeds will do", "file", path, "error", err)
	}
	return b
}

func parsePeers(b []byte, now time.Time) ([]peer, error) {
	if len(b) > maxPeersFile {
		return nil, errors.New("the file is too long for a peers file")
	}
	var f peersFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	f.Peers = slices.DeleteFunc(f.Peers, func(p peer) bool {
		return p.ID == "" || len(p.ID) > pki.MaxMemberID || !p.Addr.IsValid() || p.Addr.Port() == 0 || now.Sub(p.Seen) > peerLife
	})
	return f.Peers[:min(len(f.Peers), maxPeers)], nil
}

func (b *peerBook) seen(id binnacle.NodeID, addr netip.AddrPort, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peers[id] = peer{id, addr, at}
	b.dirty = true
}

// alive is seen for peers that live on: it changes the book once an hour.
func (b *peerBook) alive(id binnacle.NodeID, addr netip.AddrPort, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[id]; p.Addr != addr || at.Sub(p.Seen) > time.Hour {
		b.peers[id] = peer{id, addr, at}
		b.dirty = true
	}
}

// left strikes out a member that said good-bye: it comes back by itself.
func (b *peerBook) left(id binnacle.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[id]; ok {
		delete(b.peers, id)
		b.dirty = true
	}
}

// list returns all peers, the newest first.
func (b *peerBook) list() []peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listLocked()
}

func (b *peerBook) listLocked() []peer {
	return slices.SortedFunc(maps.Values(b.peers), func(x, y peer) int {
		if c := y.Seen.Compare(x.Seen); c != 0 {
			return c
		}
		return strings.Compare(string(x.ID), string(y.ID))
	})
}

func (b *peerBook) saveIfDue(now time.Time) {
	b.mu.Lock()
	due := b.dirty && now.Sub(b.saved) >= savePeersEvery
	b.mu.Unlock()
	if !due {
		return
	}
	if err := b.save(); err != nil {
		b.log.Warn("gossip peers are not kept", "file", b.path, "error", err)
	}
}

// save writes the file, if there is one and something changed.
func (b *peerBook) save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path == "" || !b.dirty {
		return nil
	}
	b.saved = time.Now()
	peers := b.listLocked()
	content, err := json.Marshal(peersFile{peers[:min(len(peers), maxPeers)]})
	if err == nil {
		err = atomicfile.Write(b.path, content, 0o600)
	}
	b.dirty = err != nil
	return err
}
