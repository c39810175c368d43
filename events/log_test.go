package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

func open(t *testing.T, s *state.Store, keep int) (*events.Log, *metrics.Set) {
	t.Helper()
	set := metrics.NewSet()
	l, err := events.Open(t.Context(), events.Options{Store: s, Keep: keep, Metrics: set})
	if err != nil {
		t.Fatal(err)
	}
	return l, set
}

func add(t *testing.T, l *events.Log, e api.Event) api.Event {
	t.Helper()
	e, err := l.Append(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func ids(es []api.Event) string {
	var b strings.Builder
	for _, e := range es {
		fmt.Fprintf(&b, "%d ", e.ID)
	}
	return strings.TrimSpace(b.String())
}

func TestList(t *testing.T) {
	l, set := open(t, statetest.Memory(t), 0)
	for _, e := range []api.Event{
		{Kind: events.NodeJoined, Group: "a", Node: "n1"},
		{Kind: events.RolloutStarted, Group: "b"},
		{Kind: events.NodeLeft, Group: "a", Node: "n1"},
		{Kind: events.RolloutCompleted, Group: "b"},
		{Kind: events.NodeJoined, Group: "b", Node: "n2"},
	} {
		if got := add(t, l, e); got.Time.IsZero() || got.ID == 0 {
			t.Errorf("Append: %+v; want time and id", got)
		}
	}
	f := func(filter events.Filter, want string) {
		t.Helper()
		es, err := l.List(t.Context(), filter)
		if got := ids(es); err != nil || got != want {
			t.Errorf("List(%+v): got %q, %v; want %q", filter, got, err, want)
		}
	}
	f(events.Filter{}, "1 2 3 4 5")
	f(events.Filter{Limit: 2}, "4 5")
	f(events.Filter{After: 1, Limit: 2}, "2 3")
	f(events.Filter{After: 5}, "")
	f(events.Filter{Kind: "node."}, "1 3 5")
	f(events.Filter{Kind: "node.", Limit: 2}, "3 5")
	f(events.Filter{Group: "b"}, "2 4 5")
	f(events.Filter{Node: "n1", Kind: events.NodeLeft}, "3")

	var out bytes.Buffer
	set.WritePrometheus(&out)
	if want := `binnacle_events_total{kind="node.joined",group="b"} 1`; !strings.Contains(out.String(), want) {
		t.Errorf("metrics lack %s:\n%s", want, out.String())
	}
}

func TestRefusals(t *testing.T) {
	l, _ := open(t, statetest.Memory(t), 0)
	for _, e := range []api.Event{
		{Kind: ""},
		{Kind: "Node.Joined"},
		{Kind: "joined"},
		{Kind: `x.y"}`},
		{Kind: events.NodeJoined, Data: json.RawMessage(`{`)},
		{Kind: events.NodeJoined, Message: strings.Repeat("x", events.MaxEventBytes)},
	} {
		if got, err := l.Append(t.Context(), e); err == nil {
			t.Errorf("Append of %.60v: no error", got)
		}
	}
	if es, _ := l.List(t.Context(), events.Filter{}); len(es) != 0 {
		t.Errorf("refused events are listed: %v", es)
	}
}

// TestKept is about restarts and the bound: ids go on, the newest stay.
func TestKept(t *testing.T) {
	s := statetest.New(t)
	l, _ := open(t, s, 10)
	var want []api.Event
	for i := range 25 {
		want = append(want, add(t, l, api.Event{Kind: events.NodeJoined, Message: fmt.Sprint(i), Data: json.RawMessage(`{"n":1}`)}))
	}
	l, _ = open(t, s, 10)
	got, err := l.List(t.Context(), events.Filter{})
	if err != nil || len(got) != 10 {
		t.Fatalf("List after a restart: %d events, %v; want 10", len(got), err)
	}
	for i, e := range got {
		w := want[15+i]
		if e.ID != w.ID || e.Message != w.Message || !e.Time.Equal(w.Time) || string(e.Data) != string(w.Data) {
			t.Errorf("event %d: got %+v; want %+v", i, e, w)
		}
	}
	if e := add(t, l, api.Event{Kind: events.NodeLeft}); e.ID != 26 {
		t.Errorf("id after a restart: got %d; want 26", e.ID)
	}
	// A smaller bound takes effect, too.
	l, _ = open(t, s, 3)
	add(t, l, api.Event{Kind: events.NodeLeft})
	if kvs, err := s.List(t.Context(), "events/"); err != nil || len(kvs) != 3 {
		t.Errorf("stored events: %d, %v; want 3", len(kvs), err)
	}
}

// TestTwoWriters has two logs on one store, as in a manager group.
func TestTwoWriters(t *testing.T) {
	s := statetest.Memory(t)
	a, _ := open(t, s, 0)
	b, _ := open(t, s, 0)
	for range 5 {
		add(t, a, api.Event{Kind: events.NodeJoined})
		add(t, b, api.Event{Kind: events.NodeLeft})
	}
	es, err := b.List(t.Context(), events.Filter{})
	if got, want := ids(es), "1 2 3 4 5 6 7 8 9 10"; err != nil || got != want {
		t.Errorf("List: got %q, %v; want %q", got, err, want)
	}
}

func TestStorm(t *testing.T) {
	l, _ := open(t, statetest.New(t), 0)
	ctx, cancel := context.WithCancel(t.Context())
	live := l.Subscribe(ctx)
	const writers, each = 50, 4 // together less than a subscriber may be behind
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := l.Append(ctx, api.Event{Kind: events.NodeJoined}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	es, err := l.List(ctx, events.Filter{})
	if err != nil || len(es) != writers*each {
		t.Fatalf("List: %d events, %v; want %d", len(es), err, writers*each)
	}
	cancel()
	want := uint64(1)
	for e := range live {
		if e.ID != want {
			t.Fatalf("subscriber got id %d; want %d", e.ID, want)
		}
		want++
	}
	if want != writers*each+1 {
		t.Errorf("subscriber got ids below %d; want %d events", want, writers*each)
	}
}

func TestSlowSubscriber(t *testing.T) {
	l, set := open(t, statetest.Memory(t), 0)
	slow := l.Subscribe(t.Context())
	for range 300 {
		add(t, l, api.Event{Kind: events.NodeJoined})
	}
	if e := <-slow; e.ID != 45 {
		t.Errorf("slow subscriber's first: got id %d; want 45, the oldest of the newest 256", e.ID)
	}
	var out bytes.Buffer
	set.WritePrometheus(&out)
	if want := "binnacle_events_dropped_total 44"; !strings.Contains(out.String(), want) {
		t.Errorf("metrics lack %s:\n%s", want, out.String())
	}
}

// TestCanceled has a caller that leaves before its turn.
func TestCanceled(t *testing.T) {
	l, _ := open(t, statetest.Memory(t), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Append(ctx, api.Event{Kind: events.NodeJoined})
	e := add(t, l, api.Event{Kind: events.NodeLeft})
	es, _ := l.List(t.Context(), events.Filter{})
	if len(es) != int(e.ID) {
		t.Errorf("after a canceled Append (%v): %d events, newest id %d", err, len(es), e.ID)
	}
}
