package membership

import (
	"slices"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/gossip"
)

func TestStateOf(t *testing.T) {
	p := DefaultPeriods()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	// A node that has run for an hour and whose poll is held.
	polling := Signs{AliveSince: ago(time.Hour), LastPoll: ago(10 * time.Second), Resumed: ago(2 * time.Hour)}
	with := func(f func(*Signs)) Signs {
		s := polling
		f(&s)
		return s
	}

	tests := []struct {
		name  string
		signs Signs
		want  api.NodeState
		since time.Time
		conds []string
	}{
		{"polls", polling, api.Alive, ago(time.Hour), nil},
		{"silent for less than a poll", with(func(s *Signs) { s.LastPoll = ago(44 * time.Second) }), api.Alive, ago(time.Hour), nil},
		{"silent for longer", with(func(s *Signs) { s.LastPoll = ago(46 * time.Second) }), api.Unreachable, ago(time.Second), nil},
		{"silent up to down_after", with(func(s *Signs) { s.LastPoll = ago(5*time.Minute + 44*time.Second) }), api.Unreachable, ago(4*time.Minute + 59*time.Second), nil},
		{"silent for down_after", with(func(s *Signs) { s.LastPoll = ago(5*time.Minute + 45*time.Second) }), api.Down, now, nil},

		{"poll broke just now", with(func(s *Signs) { s.PollBroken = ago(500 * time.Millisecond) }), api.Alive, ago(time.Hour), nil},
		{"poll broke 2 s ago", with(func(s *Signs) { s.PollBroken = ago(2 * time.Second) }), api.Suspect, ago(time.Second), nil},
		{"poll broke 6 s ago", with(func(s *Signs) { s.PollBroken = ago(6 * time.Second) }), api.Unreachable, ago(time.Second), nil},
		{"poll broke long ago", with(func(s *Signs) { s.PollBroken, s.LastPoll = ago(time.Hour), ago(time.Hour) }), api.Down, ago(time.Hour - 5*time.Minute - 5*time.Second), nil},

		{"gossip suspects", with(func(s *Signs) { s.Gossip, s.GossipAt = gossip.Suspect, ago(time.Second) }), api.Suspect, ago(time.Second), nil},
		{"gossip says dead just now", with(func(s *Signs) { s.Gossip, s.GossipAt = gossip.Dead, ago(time.Second) }), api.Suspect, ago(time.Second), nil},
		{"gossip says dead, no poll since", with(func(s *Signs) { s.Gossip, s.GossipAt, s.LastPoll = gossip.Dead, ago(4*time.Second), ago(5*time.Second) }), api.Unreachable, ago(time.Second), nil},
		{"gossip said dead, polled since", with(func(s *Signs) { s.Gossip, s.GossipAt = gossip.Dead, ago(20*time.Second) }), api.Alive, ago(time.Hour), nil},
		{"gossip was wrong lately", with(func(s *Signs) {
			s.Gossip, s.GossipAt, s.GossipWrong, s.GossipWrongSince = gossip.Dead, ago(time.Second), ago(time.Minute), ago(2*time.Minute)
		}), api.Alive, ago(time.Hour), []string{api.CondGossipConflict}},
		{"gossip was wrong long ago", with(func(s *Signs) {
			s.Gossip, s.GossipAt, s.GossipWrong, s.GossipWrongSince = gossip.Dead, ago(time.Second), ago(11*time.Minute), ago(12*time.Minute)
		}), api.Suspect, ago(time.Second), nil},
		{"gossip was wrong and says alive", with(func(s *Signs) {
			s.Gossip, s.GossipAt, s.GossipWrong, s.GossipWrongSince = gossip.Alive, ago(time.Second), ago(time.Minute), ago(2*time.Minute)
		}), api.Alive, ago(time.Hour), nil},
		{"gossip was wrong but polls ceased", with(func(s *Signs) {
			s.Gossip, s.GossipAt, s.GossipWrong, s.LastPoll = gossip.Dead, ago(time.Second), ago(time.Minute), ago(time.Minute)
		}), api.Unreachable, ago(15 * time.Second), nil},
		{"gossip says alive, polls ceased", with(func(s *Signs) {
			s.Gossip, s.GossipAt, s.LastPoll = gossip.Alive, ago(time.Second), ago(time.Minute)
		}), api.Unreachable, ago(15 * time.Second), nil},
		{"gossip says left, it polls", with(func(s *Signs) { s.Gossip, s.GossipAt = gossip.Left, ago(time.Second) }), api.Alive, ago(time.Hour), nil},

		{"left", with(func(s *Signs) { s.LeftAt = ago(time.Second) }), api.Left, ago(time.Second), nil},
		{"left long ago", with(func(s *Signs) { s.LeftAt, s.LastPoll = ago(time.Hour), ago(time.Hour) }), api.Left, ago(time.Hour), nil},
		{"left and its poll broke", with(func(s *Signs) { s.LeftAt, s.PollBroken = ago(10*time.Second), ago(9*time.Second) }), api.Left, ago(10 * time.Second), nil},

		{"manager just started", with(func(s *Signs) { s.LastPoll, s.Resumed = ago(24*time.Hour), ago(44*time.Second) }), api.Alive, ago(time.Hour), nil},
		{"manager started a while ago", with(func(s *Signs) { s.LastPoll, s.Resumed = ago(24*time.Hour), ago(50*time.Second) }), api.Unreachable, ago(5 * time.Second), nil},
		{"was lost, manager just started", with(func(s *Signs) {
			s.LastPoll, s.LostBefore, s.Resumed = ago(24*time.Hour), ago(23*time.Hour), ago(time.Second)
		}), api.Unreachable, ago(23 * time.Hour), nil},
		{"was lost, manager gave it a poll's time", with(func(s *Signs) {
			s.LastPoll, s.LostBefore, s.Resumed = ago(24*time.Hour), ago(23*time.Hour), ago(46*time.Second)
		}), api.Down, ago(time.Second), nil},
		{"was down, manager just started", with(func(s *Signs) {
			s.LastPoll, s.DownBefore, s.Resumed = ago(24*time.Hour), ago(23*time.Hour), ago(time.Second)
		}), api.Down, ago(23 * time.Hour), nil},

		{"drains", with(func(s *Signs) { s.DrainingSince = ago(time.Minute) }), api.Alive, ago(time.Hour), []string{api.CondDraining}},
		{"drained and gone", with(func(s *Signs) { s.DrainingSince, s.LeftAt = ago(time.Minute), ago(time.Second) }), api.Left, ago(time.Second), nil},
		{"never heard of in gossip", with(func(s *Signs) { s.GossipExpected = true }), api.Alive, ago(time.Hour), []string{api.CondGossipConflict}},
		{"not heard of since it is back", with(func(s *Signs) { s.GossipExpected, s.AliveSince = true, ago(59*time.Second) }), api.Alive, ago(59 * time.Second), nil},
		{"not heard of since the manager is back", with(func(s *Signs) { s.GossipExpected, s.Resumed = true, ago(59*time.Second) }), api.Alive, ago(time.Hour), nil},
		{"heard of in gossip", with(func(s *Signs) { s.GossipExpected, s.Gossip = true, gossip.Alive }), api.Alive, ago(time.Hour), nil},
		{"udp blocked", with(func(s *Signs) { s.UDPBlocked, s.UDPBlockedSince = ago(time.Minute), ago(time.Hour) }), api.Alive, ago(time.Hour), []string{api.CondUDPBlocked}},
		{"udp was blocked", with(func(s *Signs) { s.UDPBlocked = ago(6 * time.Minute) }), api.Alive, ago(time.Hour), nil},
		{"two addresses", with(func(s *Signs) { s.Conflict, s.ConflictCause = ago(time.Minute), "both" }), api.Alive, ago(time.Hour), []string{api.CondGossipConflict}},
		{"lost twice", with(func(s *Signs) { s.Losses = []time.Time{ago(time.Hour), ago(9 * time.Minute), ago(time.Minute)} }), api.Alive, ago(time.Hour), nil},
		{"lost three times", with(func(s *Signs) { s.Losses = []time.Time{ago(9 * time.Minute), ago(5 * time.Minute), ago(time.Minute)} }), api.Alive, ago(time.Hour), []string{api.CondFlapping}},
		{"lost three times and gone", with(func(s *Signs) {
			s.LastPoll, s.Losses = ago(time.Minute), []time.Time{ago(9 * time.Minute), ago(5 * time.Minute), ago(15 * time.Second)}
		}), api.Unreachable, ago(15 * time.Second), []string{api.CondFlapping}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := StateOf(tt.signs, now, p)
			if v.State != tt.want || !v.Since.Equal(tt.since) {
				t.Errorf("got %s since %v (%s); want %s since %v", v.State, now.Sub(v.Since), v.Cause, tt.want, now.Sub(tt.since))
			}
			if (v.State == api.Alive) != (v.Cause == "") {
				t.Errorf("%s has the cause %q", v.State, v.Cause)
			}
			var kinds []string
			for _, c := range v.Conditions {
				kinds = append(kinds, c.Kind)
				if c.Cause == "" || c.Since.IsZero() || c.Since.After(now) {
					t.Errorf("condition %+v lacks its cause or time", c)
				}
			}
			if !slices.Equal(kinds, tt.conds) || v.Conditions == nil {
				t.Errorf("conditions %v; want %v", kinds, tt.conds)
			}
		})
	}
}

func TestOnlyABrokenPollIsDoubted(t *testing.T) {
	now := time.Now()
	s := Signs{AliveSince: now, LastPoll: now, PollBroken: now.Add(-2 * time.Second)}
	if v := StateOf(s, now, DefaultPeriods()); v.State != api.Suspect || !v.Doubted {
		t.Errorf("a broken poll: got %s, doubted %v; want suspect and doubted", v.State, v.Doubted)
	}
	s = Signs{AliveSince: now, LastPoll: now, Gossip: gossip.Suspect, GossipAt: now}
	if v := StateOf(s, now, DefaultPeriods()); v.State != api.Suspect || v.Doubted {
		t.Errorf("gossip suspects: got %s, doubted %v; want suspect and not doubted", v.State, v.Doubted)
	}
}
