package licensing

// DefaultFallbackRate is what a node without a valid lease serves, in requests
// per second, unless the license stated otherwise. Nothing under it is refused.
const DefaultFallbackRate = 1000.0

// Names of the plans that need no license to be bought.
const (
	PlanCommunity = "community"
	PlanFree      = "free"
)

// Plan says what a plan allows.
type Plan struct {
	Name string `json:"name"`
	// Seats is how many nodes may be in the cluster, in words.
	Seats string `json:"seats"`
	// Ends says when it ends.
	Ends string `json:"ends"`
	// Gossip and RemoteConfig say whether a node is a full member.
	Gossip       bool `json:"gossip"`
	RemoteConfig bool `json:"remote_config"`
	// Rate is what a node serves at most, in words.
	Rate string `json:"rate"`
	// When says who is under it.
	When string `json:"when"`
}

// Plans is the table of plans, the one place where they stand. `binnacle
// license inspect` shows it.
var Plans = []Plan{
	{
		Name: PlanCommunity, Seats: "unlimited", Ends: "never", Gossip: true, RemoteConfig: true, Rate: "no limit",
		When: "a manager that was started without --license and --license-keys",
	},
	{
		Name: "licensed", Seats: "as the license says", Ends: "as the license says, and license_grace later", Gossip: true, RemoteConfig: true, Rate: "no limit",
		When: "a license is installed; the plan has the name that the license gives it",
	},
	{
		Name: PlanFree, Seats: "none", Ends: "with the next valid lease", Gossip: false, RemoteConfig: false, Rate: "1000 requests per second and node, unless the license stated another or none",
		When: "a node with the @cluster block and no valid lease",
	},
	{
		Name: "standalone", Seats: "none", Ends: "never", Gossip: false, RemoteConfig: false, Rate: "no limit",
		When: "a gateway without the @cluster block",
	},
}
