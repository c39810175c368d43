package gate

// ownZ is the deviation that bounds what the canary's nodes had before from below.
// Nodes that are as good as the others are then hardly ever held for worse.
const ownZ = 2.33

// OwnParts is in how many parts the hours before are cut to see whether the canary's
// own nodes were worse than the group all the time.
const OwnParts = 3

// OwnShare is what the canary's own nodes had of errors in every part of the hours
// before, bounded from below, and 0 if that is not more than the group had. Nodes may
// differ: in their zone, in what is sent to them. One that always had more errors than
// the rest is no worse for its revision.
func OwnShare(own, group []Counts) float64 {
	least := 1.0
	for i, c := range own {
		lower, _ := wilson(c, ownZ)
		if lower <= group[i].Share() {
			return 0
		}
		least = min(least, lower)
	}
	return least
}
