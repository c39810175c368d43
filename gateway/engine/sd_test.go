package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/luraproject/lura/v2/sd"
)

func TestSRVHosts(t *testing.T) {
	f := func(records []*net.SRV, want ...string) {
		t.Helper()
		if got := srvHosts("http", records); !slices.Equal(got, want) {
			t.Errorf("srvHosts: got %q; want %q", got, want)
		}
	}
	f([]*net.SRV{{Target: "b.", Port: 2}, {Target: "a.", Port: 1}}, "http://a:1", "http://b:2")
	f([]*net.SRV{{Target: "a.", Port: 1, Weight: 10}, {Target: "b.", Port: 1, Weight: 20}}, "http://a:1", "http://b:1", "http://b:1")
	f([]*net.SRV{{Target: "a.", Port: 1, Weight: 10}, {Target: "b.", Port: 1, Weight: 0}}, "http://a:1", "http://b:1")
	f([]*net.SRV{{Target: "spare.", Port: 1, Priority: 2}, {Target: "a.", Port: 1, Priority: 1}}, "http://a:1")
	many := srvHosts("http", []*net.SRV{{Target: "a.", Port: 1, Weight: 65535}, {Target: "b.", Port: 1, Weight: 65534}})
	if len(many) > maxDNSHosts+2 {
		t.Errorf("coprime weights: %d hosts; want at most %d", len(many), maxDNSHosts)
	}
}

func TestDNSSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Value // "" is a failure
		answer.Store("")
		s := &dnsSubscriber{name: "_x._tcp.test", scheme: "https", lookup: func(context.Context, string, string, string) (string, []*net.SRV, error) {
			target := answer.Load().(string)
			if target == "" {
				return "", nil, errors.New("no such host")
			}
			return "", []*net.SRV{{Target: target, Port: 8443}}, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		s.update(ctx)
		if _, err := s.Hosts(); !errors.Is(err, sd.ErrNoHosts) {
			t.Errorf("before the first answer: %v; want ErrNoHosts", err)
		}
		go s.run(ctx, time.Minute)
		hosts := func() string {
			time.Sleep(time.Minute)
			synctest.Wait()
			hs, err := s.Hosts()
			if err != nil || len(hs) != 1 {
				t.Fatalf("Hosts: %q, %v", hs, err)
			}
			return hs[0]
		}
		answer.Store("a.")
		if got := hosts(); got != "https://a:8443" {
			t.Errorf("after a minute: %q", got)
		}
		answer.Store("")
		if got := hosts(); got != "https://a:8443" {
			t.Errorf("after a failed lookup: %q; want the old host", got)
		}
		answer.Store("b.")
		if got := hosts(); got != "https://b:8443" {
			t.Errorf("after a change: %q", got)
		}
		cancel()
		synctest.Wait() // run has ended, or the bubble fails
	})
}
