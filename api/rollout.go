package api

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// NewRollout is the body of POST /v1/groups/{g}/rollouts. Only Revision must be
// set.
type NewRollout struct {
	Revision binnacle.Revision `json:"revision"`
	// Strategy is "all" or "steps"; empty means "all".
	Strategy string `json:"strategy"`
	// Steps of strategy "steps"; empty means the default: one node, 10 %, 50 %
	// and all, each with a bake of two minutes.
	Steps []NewStep `json:"steps,omitempty"`
	// MaxUnavailable bounds the nodes that are applying the revision at the same
	// time; 0 means a quarter of the group.
	MaxUnavailable int `json:"max_unavailable,omitempty"`
	// WhenBusy says what happens to a rollout of the group that is under way:
	// "supersede" (the default) ends it, "queue" waits for its end.
	WhenBusy string `json:"when_busy,omitempty"`
}

// NewStep is one step of a rollout: how much of the group has the revision when
// its nodes have confirmed, and how long they are watched then.
type NewStep struct {
	// Nodes or Percent; a step has one of the two. Percent is rounded up.
	Nodes   int     `json:"nodes,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	// Bake is in seconds. 0 means that nobody looks: the step has no gate.
	Bake float64 `json:"bake"`
}

// RolloutState says where a rollout stands.
type RolloutState string

// The states of a rollout. Queued, running, paused and rolling_back ones are
// under way, the others have ended.
const (
	// RolloutQueued waits for the end of another rollout of the group.
	RolloutQueued  RolloutState = "queued"
	RolloutRunning RolloutState = "running"
	// RolloutPaused goes no further, by an operator's word; gates still fail it.
	RolloutPaused RolloutState = "paused"
	// RolloutRollingBack failed, and the nodes that had the revision are on
	// their way back.
	RolloutRollingBack RolloutState = "rolling_back"
	RolloutCompleted   RolloutState = "completed"
	RolloutFailed      RolloutState = "failed"
	RolloutAborted     RolloutState = "aborted"
	// RolloutSuperseded ended because a newer rollout of the group began.
	RolloutSuperseded RolloutState = "superseded"
)

// Ended reports whether a rollout in this state is over.
func (s RolloutState) Ended() bool {
	switch s {
	case RolloutCompleted, RolloutFailed, RolloutAborted, RolloutSuperseded:
		return true
	}
	return false
}

// Rollout brings a group from one revision to another, or restarts its nodes one
// after the other (strategy "restart").
type Rollout struct {
	ID       string            `json:"id"`
	Group    binnacle.Group    `json:"group"`
	From     binnacle.Revision `json:"from"`
	To       binnacle.Revision `json:"to"`
	Strategy string            `json:"strategy"`
	State    RolloutState      `json:"state"`
	Author   string            `json:"author,omitempty"`
	Started  time.Time         `json:"started"`
	Ended    time.Time         `json:"ended,omitzero"`
	// Confirmed and Refused list nodes; Pending those that were told and have
	// not answered yet. A node of a later step is in none of them.
	Confirmed []binnacle.NodeID          `json:"confirmed"`
	Refused   map[binnacle.NodeID]string `json:"refused,omitempty"`
	Pending   []binnacle.NodeID          `json:"pending"`
	// Reason says why it stands where it stands.
	Reason string `json:"reason,omitempty"`

	// Steps of strategy "steps"; Step is the index of the one under way.
	Steps          []RolloutStep `json:"steps,omitempty"`
	Step           int           `json:"step"`
	MaxUnavailable int           `json:"max_unavailable,omitempty"`
	// Returned lists the nodes that confirmed the way back after a failure.
	Returned []binnacle.NodeID `json:"returned,omitempty"`
	// Report compares before and after; it is written when a rollout ends.
	Report *RolloutReport `json:"report,omitempty"`
}

// StepState says where a step stands.
type StepState string

// The states of a step.
const (
	StepWaiting StepState = "waiting"
	// StepRolling: nodes are being told and confirm.
	StepRolling StepState = "rolling"
	// StepBaking: all have confirmed and are watched.
	StepBaking StepState = "baking"
	// StepAsking: the evidence did not suffice in time. More of it, or an
	// operator's promote or abort, ends this.
	StepAsking StepState = "asking"
	StepPassed StepState = "passed"
	StepFailed StepState = "failed"
)

// RolloutStep is one step with what came of it.
type RolloutStep struct {
	NewStep
	State StepState `json:"state"`
	// Added lists the nodes that got the revision in this step.
	Added       []binnacle.NodeID `json:"added,omitempty"`
	Started     time.Time         `json:"started,omitzero"`
	BakeStarted time.Time         `json:"bake_started,omitzero"`
	Ended       time.Time         `json:"ended,omitzero"`
	// Verdict is the newest one of the step's gate.
	Verdict *Verdict `json:"verdict,omitempty"`
	// PromotedBy names who let the step pass without its gate.
	PromotedBy string `json:"promoted_by,omitempty"`
}

// VerdictResult is one of three.
type VerdictResult string

// The verdicts of a gate.
const (
	VerdictPass         VerdictResult = "pass"
	VerdictFail         VerdictResult = "fail"
	VerdictInconclusive VerdictResult = "inconclusive"
)

// Verdict is what a gate found, with its evidence.
type Verdict struct {
	Result VerdictResult `json:"result"`
	Reason string        `json:"reason"`
	At     time.Time     `json:"at"`
	// Control is "nodes" when other nodes were compared over the same minutes,
	// and "before" when there were none and the canary nodes' own minutes before
	// the step took their place.
	Control string `json:"control,omitempty"`
	// Canaries and Controls list the nodes; those of a large group are cut off.
	Canaries []binnacle.NodeID `json:"canaries,omitempty"`
	Controls []binnacle.NodeID `json:"controls,omitempty"`
	// From is the begin of the window, At its end.
	From time.Time `json:"from,omitzero"`
	// BaselineFrom is the begin of the minutes before the step, which end with
	// From.
	BaselineFrom time.Time `json:"baseline_from,omitzero"`
	// Looks counts how often the evidence was looked at.
	Looks int `json:"looks"`
	// Test names the statistical test, Budget is the probability that a canary
	// as good as its control fails, over all comparisons and looks. Where History
	// is used it holds in minutes like the hours before; the test's Ceiling is for all others.
	Test   string  `json:"test,omitempty"`
	Budget float64 `json:"budget,omitempty"`
	// History is what the hours before the rollout say of the errors that are
	// usual; missing where the control is "before".
	History *History `json:"history,omitempty"`
	// Comparisons has those of all traffic, and of single endpoints the ones
	// with the strongest evidence; LeftOut counts the rest.
	Comparisons []Comparison `json:"comparisons,omitempty"`
	LeftOut     int          `json:"left_out,omitempty"`
	// Saturation has what answering costs the nodes; it fails by thresholds.
	Saturation []Saturation `json:"saturation,omitempty"`
}

// Saturation is one measure of the gateway processes of both sides, of one node in
// the mean.
type Saturation struct {
	// What is cpu, in cores, or memory, in bytes of resident memory.
	What string `json:"what"`
	// Canary is the least of the last 30 s. Control is the most of the same time, or,
	// where the minutes before the step are the control, of those.
	Canary  float64 `json:"canary"`
	Control float64 `json:"control"`
	// Limit is what fails the canary above it.
	Limit float64 `json:"limit"`
	// CanaryQuery is PromQL to evaluate at the verdict's time, ControlQuery at
	// ControlAt.
	CanaryQuery  string    `json:"canary_query"`
	ControlQuery string    `json:"control_query"`
	ControlAt    time.Time `json:"control_at"`
	// Result is fail or pass.
	Result VerdictResult `json:"result"`
}

// Comparison is one question asked of the evidence.
type Comparison struct {
	// What is compared: errors, client_errors_401, client_errors_403,
	// client_errors_404, client_errors_other, slower_than_p50 or slower_than_p99.
	What string `json:"what"`
	// Endpoint is "GET /users/{id}", empty for all traffic.
	Endpoint string `json:"endpoint,omitempty"`
	// Threshold, in seconds, is what "slow" means here.
	Threshold float64 `json:"threshold,omitempty"`
	// Query is PromQL that gives the numbers again; evaluate it at the
	// verdict's time.
	CanaryQuery  string `json:"canary_query"`
	ControlQuery string `json:"control_query"`
	Canary       Sample `json:"canary"`
	Control      Sample `json:"control"`
	// Baseline is the group before the step; it counts only where that is said.
	Baseline *Sample `json:"baseline,omitempty"`
	// Evidence that the canary is worse, as an e-value: under equal quality it
	// exceeds Needed with a probability of at most 1/Needed.
	Evidence float64 `json:"evidence"`
	Needed   float64 `json:"needed"`
	// Upper bounds the canary's share minus the control's, in points of one.
	Upper float64 `json:"upper,omitempty"`
	// Result is fail, pass, or inconclusive for too few requests.
	Result VerdictResult `json:"result"`
	Note   string        `json:"note,omitempty"`
	// Exact is the newest test at a milestone of requests; only for the errors of
	// all traffic.
	Exact *ExactTest `json:"exact,omitempty"`
}

// History is what a group served in the hours before a rollout with the revision it
// then had, in spells of equal length.
type History struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Query is PromQL for the requests of a spell, by outcome; evaluate it every
	// SpellSeconds.
	Query        string  `json:"query"`
	SpellSeconds float64 `json:"spell_seconds"`
	// Spells counts those with requests, Sum is all of them, and Worst the highest
	// share of errors of one.
	Spells int     `json:"spells"`
	Sum    Sample  `json:"sum"`
	Worst  float64 `json:"worst"`
	// Used says that there was enough of it to direct the tests; if not, Note has
	// the reason.
	Used bool   `json:"used"`
	Note string `json:"note,omitempty"`
}

// ExactTest is the test of errors that is made once at a milestone of requests.
type ExactTest struct {
	Canary  Sample `json:"canary"`
	Control Sample `json:"control"`
	// FailsFrom is the least number of bad requests of the canary that fails, given
	// those of the control; more than all its requests if none does.
	FailsFrom int  `json:"fails_from"`
	Failed    bool `json:"failed,omitempty"`
	// Alpha is the most of equally good canaries that fail in minutes like the hours
	// before, Ceiling the most of them that fail whatever happens to both sides.
	Alpha   float64 `json:"alpha"`
	Ceiling float64 `json:"ceiling"`
	// Usual is the share of errors that the test was made for, Power the share of
	// canaries with 2 points more that it finds; 0 where neither was needed.
	Usual float64 `json:"usual,omitempty"`
	Power float64 `json:"power,omitempty"`
}

// Sample is a number of requests and how many of them were bad.
type Sample struct {
	Requests float64 `json:"requests"`
	Bad      float64 `json:"bad"`
}

// RolloutReport compares the group before a rollout with after it.
type RolloutReport struct {
	// BeforeFrom to BeforeTo, and AfterFrom to AfterTo, are the windows.
	BeforeFrom time.Time `json:"before_from"`
	BeforeTo   time.Time `json:"before_to"`
	AfterFrom  time.Time `json:"after_from"`
	AfterTo    time.Time `json:"after_to"`
	// All is all traffic; Endpoints are ordered by their requests, the busiest
	// first, at most 100.
	All       ReportLine   `json:"all"`
	Endpoints []ReportLine `json:"endpoints,omitempty"`
	// Note says what is missing, if anything is.
	Note string `json:"note,omitempty"`
}

// ReportLine is one line of a report.
type ReportLine struct {
	Endpoint string     `json:"endpoint,omitempty"`
	Before   ReportSide `json:"before"`
	After    ReportSide `json:"after"`
}

// ReportSide is what one window shows. Latencies are seconds, nil without
// requests, as the ratio is.
type ReportSide struct {
	Requests     float64  `json:"requests"`
	Errors       float64  `json:"errors"`
	ClientErrors float64  `json:"client_errors"`
	ErrorRatio   *float64 `json:"error_ratio"`
	P50          *float64 `json:"p50"`
	P99          *float64 `json:"p99"`
}

// Diff is the structural difference between two configurations, with the
// traffic of what it touches.
type Diff struct {
	Group binnacle.Group    `json:"group"`
	From  binnacle.Revision `json:"from"`
	To    binnacle.Revision `json:"to"`
	// TrafficFrom and TrafficTo bound the traffic shown: 24 hours.
	TrafficFrom time.Time      `json:"traffic_from"`
	TrafficTo   time.Time      `json:"traffic_to"`
	Endpoints   []EndpointDiff `json:"endpoints"`
	// Service lists what differs outside of endpoints, by key or namespace.
	Service []FieldDiff `json:"service"`
	// Lines is a unified diff where the format has no structure to compare.
	Lines string `json:"lines,omitempty"`
	// RemovesTraffic is true when an endpoint with traffic goes.
	RemovesTraffic bool `json:"removes_traffic"`
	// Note says what is missing, such as traffic that could not be read.
	Note string `json:"note,omitempty"`
}

// EndpointDiff is one endpoint that differs.
type EndpointDiff struct {
	// Endpoint is "GET /users/{id}".
	Endpoint string `json:"endpoint"`
	// Change is added, removed or changed.
	Change string `json:"change"`
	// Fields lists what changed, backends included: "/backend/0/host".
	Fields []FieldDiff `json:"fields,omitempty"`
	// Traffic is nil when there was none to read.
	Traffic *Traffic `json:"traffic"`
}

// FieldDiff is one value that differs. Before or After is empty when the value
// is on one side only; long values are cut.
type FieldDiff struct {
	Path   string `json:"path"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Traffic is what an endpoint served in a window.
type Traffic struct {
	Requests          float64   `json:"requests"`
	RequestsPerSecond float64   `json:"requests_per_second"`
	ErrorRatio        float64   `json:"error_ratio"`
	LastSeen          time.Time `json:"last_seen,omitzero"`
}
