package gossip

import (
	"time"
)

// SetMeta changes what the member says of itself. It returns at once; the news
// spreads within a second or so. An address that is too long is refused.
func (g *Gossip) SetMeta(m Metadata) error {
	g.mu.Lock()
	old := g.meta
	g.meta = m
	g.mu.Unlock()
	if m == old {
		return nil
	}
	if err := g.reseal(); err != nil {
		g.mu.Lock()
		g.meta = old
		g.mu.Unlock()
		return err
	}
	g.announceSoon()
	return nil
}

// reseal makes the newest metadata what NodeMeta gives.
func (g *Gossip) reseal() error {
	g.sealMu.Lock()
	defer g.sealMu.Unlock()
	g.mu.Lock()
	m := g.meta
	m.udpBlocked = g.ownUDPBlocked
	g.mu.Unlock()
	return g.seal(m)
}

func (g *Gossip) seal(m Metadata) error {
	b, err := sealMetadata(m, g.self, g.opts.Identity)
	if err != nil {
		return err
	}
	g.sealed.Store(&b)
	return nil
}

func (g *Gossip) announceSoon() {
	select {
	case g.announce <- struct{}{}:
	default:
	}
}

// announceTimeout bounds the wait until a change has been told to somebody,
// and with it how long Close takes at worst.
const announceTimeout = 500 * time.Millisecond

func (g *Gossip) announceChanges() {
	for {
		select {
		case <-g.announce:
			if err := g.update(announceTimeout); err != nil {
				g.log.Debug("gossip told nobody of a change yet", "error", err)
			}
			if g.UDPBlocked() {
				g.tellManagers()
			}
		case <-g.ctx.Done():
			return
		}
	}
}

// update announces the sealed metadata. memberlist bears only one at a time.
func (g *Gossip) update(timeout time.Duration) error {
	g.updateMu.Lock()
	defer g.updateMu.Unlock()
	return g.list.UpdateNode(timeout)
}
