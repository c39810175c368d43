package engine

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/sd"
)

// Times of service discovery by DNS, as in KrakenD.
const (
	defaultDNSTTL = 30 * time.Second
	minDNSTTL     = time.Second
	dnsTimeout    = 5 * time.Second
)

// maxDNSHosts bounds the hosts that one name resolves to, weights included.
const maxDNSHosts = 1000

// subscriber says where a backend's hosts come from. Lura's own DNS subscriber
// runs for ever; this one ends with its generation.
func (b *builder) subscriber(remote *config.Backend) sd.Subscriber {
	if remote.SD != "dns" || len(remote.Host) == 0 {
		return sd.FixedSubscriber(remote.Host)
	}
	if b.dry {
		return sd.FixedSubscriber(nil)
	}
	ttl := b.cfg.DNSCacheTTL
	if ttl < minDNSTTL {
		ttl = defaultDNSTTL
	}
	s := &dnsSubscriber{
		// SRV names come without a scheme; Lura's cleaning adds one.
		name:   strings.TrimPrefix(strings.TrimPrefix(remote.Host[0], "http://"), "https://"),
		scheme: cmp.Or(remote.SDScheme, "http"),
		lookup: net.DefaultResolver.LookupSRV,
	}
	s.update(b.ctx)
	go s.run(b.ctx, ttl) // ends with b.ctx, which the generation's release cancels
	return s
}

// dnsSubscriber keeps the hosts of an SRV record.
type dnsSubscriber struct {
	name, scheme string
	lookup       func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	hosts        atomic.Pointer[[]string]
}

// Hosts returns the last hosts that were found. The caller must not change
// them.
func (s *dnsSubscriber) Hosts() ([]string, error) {
	if p := s.hosts.Load(); p != nil {
		return *p, nil
	}
	return nil, sd.ErrNoHosts
}

func (s *dnsSubscriber) run(ctx context.Context, ttl time.Duration) {
	t := time.NewTicker(ttl)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.update(ctx)
		}
	}
}

// update keeps the old hosts when the lookup fails.
func (s *dnsSubscriber) update(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	_, records, err := s.lookup(ctx, "", "", s.name)
	if err != nil || len(records) == 0 {
		return
	}
	hosts := srvHosts(s.scheme, records)
	s.hosts.Store(&hosts)
}

// srvHosts returns the hosts of the best priority, each as often as its share
// of the weight.
func srvHosts(scheme string, records []*net.SRV) []string {
	best := slices.MinFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	var divisor, total int
	for _, r := range records {
		if r.Priority == best {
			divisor = gcd(divisor, int(r.Weight))
			total += int(r.Weight)
		}
	}
	divisor = max(divisor, 1, total/maxDNSHosts)
	var hosts []string
	for _, r := range records {
		if r.Priority != best {
			continue
		}
		host := scheme + "://" + net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
		for range max(1, int(r.Weight)/divisor) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
