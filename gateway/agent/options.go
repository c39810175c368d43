package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/licensing"
)

// GossipOff as Options.Gossip makes a node poll only, for networks where
// members cannot reach each other.
const GossipOff = "off"

// Options say what an agent is to be. DefaultOptions has what is not asked
// for; the others come from the @cluster block and the command line.
type Options struct {
	// ConfigFile is the node's own file, read at the start and on Reload.
	ConfigFile string
	// ReadFile reads it as JSON; nil takes it as it stands.
	ReadFile func(path string) ([]byte, error)
	// Managers are host:port of the node API of one manager group, tried in
	// turn.
	Managers []string
	// TokenFile holds the join token. It is needed until the node is enrolled,
	// and again should the manager forget it.
	TokenFile string
	// Name, Group and Labels are proposed at enrollment; Name and Group may be
	// empty: the manager then chooses.
	Name   string
	Group  binnacle.Group
	Labels map[string]string
	// Advertise is host or host:port under which others reach this node; empty
	// is found out.
	Advertise string
	// StateDir holds identity, plan, lease and the last good configurations.
	// No two agents may share it.
	StateDir string
	// Gossip is the bind address of gossip, or GossipOff.
	Gossip string
	// Allow says which environment variables and files revisions may use.
	Allow engine.AllowList

	// Program, if not nil, is run and directed in the worker's place, and
	// ConfigFile is its configuration, which the agent writes.
	Program *Program

	// WorkerCommand starts a worker; what it must do is worker.Main.
	WorkerCommand []string
	// DieWithParent ends workers with this process, whatever ends it. Without
	// it a worker serves on and the next agent takes over its sockets.
	DieWithParent bool
	// LogFormat and LogLevel are passed on to workers.
	LogFormat string
	LogLevel  string

	// ServedAfter is how long a configuration must answer its probes to become
	// the last good one.
	ServedAfter time.Duration
	// DrainDelay bounds how long a node that was asked to stop serves on as
	// before, having said that it is not ready: to the manager, on its health
	// page and by Connection: close. Load balancers notice within it. It ends as
	// soon as no request has come for a second; another program in a worker's
	// place gets all of it. Longer makes each stop under load longer; 0 is for
	// nodes behind nothing.
	DrainDelay time.Duration
	// DrainTimeout bounds how long a worker finishes what it has in flight,
	// after the delay.
	DrainTimeout time.Duration
	// QueueBytes bounds telemetry that waits for the manager in memory.
	QueueBytes int64
	// SpoolBytes bounds telemetry that waits on disk, in StateDir, while the
	// manager is away. When it is full the oldest goes. Negative keeps none
	// there: a longer outage then leaves a gap.
	SpoolBytes int64

	// VerifyLease checks leases; nil is licensing.VerifyLease.
	VerifyLease VerifyLease

	// Notify is told of the phases of the node's life, in their order; nil tells
	// nobody.
	Notify func(Phase)

	Log     *slog.Logger
	Metrics *metrics.Set
}

// Phase is how far a node is in its life, for who manages services.
type Phase int

// The phases. PhaseReady comes at the start and after each PhaseReloading.
const (
	PhaseReady Phase = iota + 1
	PhaseReloading
	PhaseStopping
)

// DefaultOptions is the one home of defaults.
func DefaultOptions() Options {
	return Options{
		Gossip:       fmt.Sprintf(":%d", binnacle.PortGossip),
		ServedAfter:  10 * time.Second,
		DrainTimeout: 10 * time.Second,
		DrainDelay:   5 * time.Second,
		QueueBytes:   relay.MaxQueueBytes,
		SpoolBytes:   relay.MaxSpoolBytes,
	}
}

// validate fills in what is empty and says what is wrong.
func (o *Options) validate() error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.Notify == nil {
		o.Notify = func(Phase) {}
	}
	if o.VerifyLease == nil {
		o.VerifyLease = licensing.VerifyLease
	}
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	if len(o.WorkerCommand) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program to start workers with: %w", err)
		}
		o.WorkerCommand = []string{exe, "worker"}
	}
	d := DefaultOptions()
	if o.Gossip == "" {
		o.Gossip = d.Gossip
	}
	if o.ServedAfter <= 0 {
		o.ServedAfter = d.ServedAfter
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = d.DrainTimeout
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = d.QueueBytes
	}
	if o.SpoolBytes == 0 {
		o.SpoolBytes = d.SpoolBytes
	}
	var errs []error
	if len(o.Managers) == 0 {
		errs = append(errs, errors.New("manager: name at least one, as host:port"))
	}
	for _, m := range o.Managers {
		if _, _, err := net.SplitHostPort(m); err != nil {
			errs = append(errs, fmt.Errorf("manager %q: want host:port: %w", m, err))
		}
	}
	if o.TokenFile == "" {
		errs = append(errs, errors.New("token_file: name the file that holds the join token"))
	}
	if o.Program != nil {
		errs = append(errs, o.Program.validate())
	}
	if o.StateDir == "" {
		errs = append(errs, errors.New("state_dir: name a folder"))
	}
	if o.Name != "" {
		errs = append(errs, binnacle.CheckName("node", o.Name))
	}
	if o.Group != "" {
		errs = append(errs, binnacle.CheckName("group", string(o.Group)))
	}
	if o.Gossip != GossipOff {
		if _, _, err := net.SplitHostPort(o.Gossip); err != nil {
			errs = append(errs, fmt.Errorf("gossip %q: want a bind address such as %q, or %q: %w", o.Gossip, d.Gossip, GossipOff, err))
		}
	}
	if strings.ContainsAny(o.Advertise, "/ ") {
		errs = append(errs, fmt.Errorf("advertise %q: want host or host:port", o.Advertise))
	}
	return errors.Join(errs...)
}
