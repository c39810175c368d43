package gate

// run is one comparison through all looks.
type run struct {
	What     string  `json:"what"`
	Endpoint string  `json:"endpoint,omitempty"`
	Alpha    float64 `json:"alpha"`
	Ratios   ratios  `json:"ratios"`
	// Begin is what had come when the comparison began, Canary and Control what
	// had come at its last look that counted.
	Begin   [2]Counts `json:"begin"`
	Canary  Counts    `json:"canary"`
	Control Counts    `json:"control"`
	// Worst are the looks with the most evidence against the canary, the worst
	// first (calm).
	Worst [forgivenLooks]pair `json:"worst,omitzero"`
}

// pair is what one look added on both sides.
type pair struct {
	Canary  Counts `json:"canary"`
	Control Counts `json:"control"`
}

// note keeps a look if it is among the worst.
func (r *run) note(p pair) {
	for i := range r.Worst {
		if p.weight() > r.Worst[i].weight() {
			p, r.Worst[i] = r.Worst[i], p
		}
	}
}

// weight is the evidence of a look against the canary; without a control, the
// number of bad requests.
func (p pair) weight() float64 {
	if p.Control.Requests <= 0 {
		return p.Canary.Bad
	}
	most := 0.0
	if p.Canary.Bad == 0 {
		return most // nothing speaks against it
	}
	for _, f := range risks {
		most = max(most, logRatio(f, p.Canary, p.Control))
	}
	return most
}

// calm is the evidence without the worst looks: never more than with
// them, so that it is an e-value still.
func (r *run) calm() float64 {
	ratios := r.Ratios
	for _, w := range r.Worst {
		if w.Canary.Requests <= 0 || w.Control.Requests <= 0 {
			continue
		}
		for i, f := range risks {
			ratios[i] -= max(0, logRatio(f, w.Canary, w.Control))
		}
	}
	return ratios.log()
}

// calmly is the canary's counts without the worst looks.
func (r *run) calmly(canary Counts) Counts {
	for _, w := range r.Worst {
		canary = Counts{canary.Requests - w.Canary.Requests, canary.Bad - w.Canary.Bad}
	}
	return canary
}
