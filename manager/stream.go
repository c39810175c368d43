package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// overviewInterval is how often viewers of the page get news.
const overviewInterval = 2 * time.Second

// hub makes one overview per interval for all viewers together: it costs the
// same for one as for a hundred, and nothing while nobody looks.
type hub struct {
	make func() api.Overview

	mu      sync.Mutex
	viewers int
	latest  []byte        // the newest event, encoded once
	changed chan struct{} // closed and replaced with each new one
	wake    chan struct{} // a first viewer came
}

func newHub(make_ func() api.Overview) *hub {
	return &hub{make: make_, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// run makes overviews until ctx ends.
func (h *hub) run(ctx context.Context) error {
	tick := time.NewTicker(overviewInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-tick.C:
		}
		h.mu.Lock()
		n := h.viewers
		h.mu.Unlock()
		if n == 0 {
			continue
		}
		b, err := json.Marshal(h.make())
		if err != nil {
			return fmt.Errorf("encode the overview: %w", err)
		}
		h.mu.Lock()
		h.latest = b
		close(h.changed)
		h.changed = make(chan struct{})
		h.mu.Unlock()
	}
}

// join registers a viewer until leave is called.
func (h *hub) join() (leave func()) {
	h.mu.Lock()
	h.viewers++
	if h.viewers == 1 {
		h.latest = nil // stale by now
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.viewers--
		h.mu.Unlock()
	}
}

func (h *hub) next() (latest []byte, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest, h.changed
}

// overview gathers all that the overview page shows live.
func (m *Manager) overview() api.Overview {
	now := time.Now()
	nodes := m.nodes(now, shortWindow)
	recent, at := m.activity.Step()
	if at.IsZero() {
		at = now
	}
	return api.Overview{Time: at, Cluster: m.cluster(nodes), Nodes: nodes, Backends: failingOnly(m.backends(shortWindow)), Recent: recent}
}

// writeTimeout bounds each write to a viewer, so that a stuck one goes.
const writeTimeout = 15 * time.Second

// sse starts a server-sent event stream. send writes one event.
//
// Source: WHATWG HTML, "Server-sent events".
func sse(w http.ResponseWriter) (send func(name, id string, data []byte) error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	rc := http.NewResponseController(w)
	return func(name, id string, data []byte) error {
		if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		var err error
		switch {
		case name == "":
			_, err = fmt.Fprint(w, ": still here\n\n")
		case id == "":
			_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
		default:
			_, err = fmt.Fprintf(w, "event: %s\nid: %s\ndata: %s\n\n", name, id, data)
		}
		if err != nil {
			return err
		}
		return rc.Flush()
	}
}

// handleActivityStream sends overviews, and with them what is added to the event
// log: a browser opens few connections to one host, so one stream brings both.
func (m *Manager) handleActivityStream(w http.ResponseWriter, r *http.Request) error {
	leave := m.hub.join()
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	live := m.events.Subscribe(ctx)
	send := sse(w)
	var last []byte
	for {
		latest, changed := m.hub.next()
		if latest != nil && &latest[0] != firstByte(last) {
			if err := send("overview", "", latest); err != nil {
				return nil // the viewer has left
			}
			last = latest
		}
		select {
		case <-changed:
		case e, ok := <-live:
			if !ok {
				return nil
			}
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := send("event", fmt.Sprint(e.ID), b); err != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-m.stopping:
			return nil
		}
	}
}

func firstByte(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

func (m *Manager) handleEvents(w http.ResponseWriter, r *http.Request) error {
	limit, err := queryInt(r, "limit", 100, 1, 1000)
	if err != nil {
		return err
	}
	after, err := queryInt(r, "after", 0, 0, 1<<62)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	list, err := m.events.List(r.Context(), events.Filter{
		After: uint64(after), Limit: limit, Kind: q.Get("kind"),
		Group: binnacle.Group(q.Get("group")), Node: binnacle.NodeID(q.Get("node")),
	})
	if err != nil {
		return err
	}
	return writeList(w, list)
}

func (m *Manager) handleEventStream(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	live := m.events.Subscribe(ctx)
	send := sse(w)
	if err := send("", "", nil); err != nil {
		return nil
	}
	idle := time.NewTicker(writeTimeout)
	defer idle.Stop()
	for {
		select {
		case e, ok := <-live:
			if !ok {
				return nil
			}
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := send("event", fmt.Sprint(e.ID), b); err != nil {
				return nil
			}
		case <-idle.C:
			if err := send("", "", nil); err != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-m.stopping:
			return nil
		}
	}
}
