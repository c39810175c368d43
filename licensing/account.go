package licensing

import (
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// Problem says why the newest license was not taken; empty when it was.
func (k *Keeper) Problem() string { return k.current.Load().problem }

// Summary returns the short form of the license in force.
func (k *Keeper) Summary() api.LicenseSummary {
	l := k.current.Load().license
	s := api.LicenseSummary{State: State(l, time.Now())}
	if k.o.Seats != nil {
		s.SeatsUsed = k.o.Seats()
	}
	if l == nil {
		s.Plan = PlanFree
		return s
	}
	s.Plan, s.Seats, s.Expires = l.Plan, l.Seats, l.Expires
	return s
}

// License answers GET /v1/license.
func (k *Keeper) License() api.License {
	f := k.current.Load()
	out := api.License{LicenseSummary: k.Summary(), Features: []string{}, Problem: f.problem}
	out.LeaseLife = k.o.LeaseLife.Seconds()
	l := f.license
	if l == nil {
		rate := DefaultFallbackRate
		out.FallbackRate = &rate
		return out
	}
	out.ID, out.Customer, out.Issuer, out.Cluster = l.ID, l.Customer, l.Issuer, l.Cluster
	out.NotBefore, out.Grace, out.FallbackRate = l.NotBefore, l.Grace.Seconds(), l.FallbackRate
	out.Features = append(out.Features, l.Features...)
	if !l.Expires.IsZero() {
		left := time.Until(l.Expires).Round(time.Second).Seconds()
		out.Left = &left
	}
	return out
}

// Admit says whether one more node may join when held seats are taken: nil, or
// an *api.Problem of status 403 with api.SeatsMessage. Without a license that
// gives leases no node may.
func (k *Keeper) Admit(held int) error {
	l := k.current.Load().license
	if l.gives(time.Now()) && (l.Seats == 0 || held < l.Seats) {
		return nil
	}
	return &api.Problem{Title: "No seat is free", Status: http.StatusForbidden, Detail: api.SeatsMessage}
}

// Seats returns how many nodes may be members: 0 is unlimited, and -1 says that
// there is no license that gives leases.
func (k *Keeper) Seats() int {
	l := k.current.Load().license
	if !l.gives(time.Now()) {
		return -1
	}
	return l.Seats
}
