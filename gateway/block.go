package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// Block is the @cluster block of a node's own file:
//
//	"extra_config": { "@cluster": { "manager": "10.0.0.5:9899", "token_file": "/etc/binnacle/join.token" } }
//
// Relative paths are relative to the folder of the file.
type Block struct {
	// Manager is host:port of one or several managers of one cluster; without
	// a port the default one is meant.
	Manager managerList `json:"manager"`
	// TokenFile holds the join token.
	TokenFile string `json:"token_file"`
	// Name is the node's name for people; the host's name if it is not set.
	Name string `json:"name"`
	// Group is the configuration line to follow; the token's if it is not set.
	Group  binnacle.Group    `json:"group"`
	Labels map[string]string `json:"labels"`
	// Advertise is host or host:port under which others reach this node.
	Advertise string `json:"advertise"`
	// StateDir is where the node keeps its identity and its last good
	// configurations; see DefaultStateDir.
	StateDir string `json:"state_dir"`
	// Gossip is the bind address of gossip, or "off" to poll only.
	Gossip string `json:"gossip"`
	// Allow says which of its environment variables and files this node lets
	// revisions use by ${env:NAME} and ${file:PATH}; none if it is not set.
	Allow AllowBlock `json:"allow"`
	// SpoolBytes bounds the telemetry kept in StateDir while the manager is
	// away: 256 MiB if it is not set, none if it is 0.
	SpoolBytes *int64 `json:"spool_bytes"`
	// DrainDelay is how long the node serves on after it was asked to stop and
	// has said so, such as "5s", which is the default; "0s" is not at all.
	DrainDelay *duration `json:"drain_delay"`
}

// SetDrainDelay sets what the key drain_delay does.
func (b *Block) SetDrainDelay(d time.Duration) { b.DrainDelay = (*duration)(&d) }

// duration is written as Go and KrakenD write it: "5s".
type duration time.Duration

// UnmarshalJSON takes a string with a unit.
func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	err := json.Unmarshal(b, &s)
	if err == nil {
		var v time.Duration
		v, err = time.ParseDuration(s)
		*d = duration(v)
	}
	if err != nil {
		return fmt.Errorf("%s is not a duration; write a number with its unit, such as \"5s\"", b)
	}
	return nil
}

// minSpool is room for some minutes of a small node.
const minSpool = 1 << 20

// AllowBlock lists names and paths, see engine.AllowList.
type AllowBlock struct {
	Env   []string `json:"env"`
	Files []string `json:"files"`
}

// managerList takes a string or a list of strings.
type managerList []string

// UnmarshalJSON takes a string or a list of strings.
func (m *managerList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*m = managerList{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return errors.New(`want a string or a list of strings, such as "10.0.0.5:9899"`)
	}
	*m = many
	return nil
}

// ParseBlock reads the @cluster block of a configuration; nil means that there
// is none, and the gateway is a standalone one. It looks at nothing else in
// the file. All that is wrong with the block is in the error.
func ParseBlock(raw []byte) (*Block, error) {
	var file struct {
		ExtraConfig map[string]json.RawMessage `json:"extra_config"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", describe(raw, err))
	}
	body, ok := file.ExtraConfig[binnacle.ConfigBlock]
	if !ok {
		return nil, nil
	}
	b := new(Block)
	dec := json.NewDecoder(bytes.NewReader(body))
	// A misspelt key would be a node that is not what its owner thinks.
	dec.DisallowUnknownFields()
	if err := dec.Decode(b); err != nil {
		return nil, fmt.Errorf("the %s block: %w", binnacle.ConfigBlock, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("the %s block: %w", binnacle.ConfigBlock, err)
	}
	return b, nil
}

// describe adds line and column to a syntax error.
func describe(raw []byte, err error) error {
	var s *json.SyntaxError
	if !errors.As(err, &s) || s.Offset > int64(len(raw)) {
		return err
	}
	before := raw[:s.Offset]
	line := bytes.Count(before, []byte{'\n'}) + 1
	return fmt.Errorf("line %d, column %d: %w", line, len(before)-bytes.LastIndexByte(before, '\n')-1, err)
}

func (b *Block) check() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%q: %w", key, fmt.Errorf(format, args...)))
	}
	if len(b.Manager) == 0 {
		fail("manager", `is missing: name the manager's node address, such as "10.0.0.5:%d"`, binnacle.PortNode)
	}
	for i, m := range b.Manager {
		addr, err := withPort(m)
		if err != nil {
			fail("manager", "%w", err)
			continue
		}
		b.Manager[i] = addr
	}
	if b.TokenFile == "" {
		fail("token_file", "is missing: name the file that holds the join token")
	}
	if b.Name != "" {
		if err := binnacle.CheckName("node", b.Name); err != nil {
			fail("name", "%w", err)
		}
	}
	if b.Group != "" {
		if err := binnacle.CheckName("group", string(b.Group)); err != nil {
			fail("group", "%w", err)
		}
	}
	if b.Gossip != "" && b.Gossip != agent.GossipOff {
		if _, port, err := net.SplitHostPort(b.Gossip); err != nil || !isPort(port, 0) {
			fail("gossip", `%q is not a bind address; write host:port, ":%d" or "off"`, b.Gossip, binnacle.PortGossip)
		}
	}
	if host, port, err := net.SplitHostPort(b.Advertise); b.Advertise != "" {
		if err == nil && (host == "" || !isPort(port, 1)) || strings.ContainsAny(b.Advertise, "/ ") {
			fail("advertise", "%q is not an address; write host or host:port", b.Advertise)
		}
	}
	if n := b.SpoolBytes; n != nil && *n != 0 && *n < minSpool {
		fail("spool_bytes", "%d is too little; write at least %d, or 0 to keep no telemetry on disk", *n, minSpool)
	}
	if d := b.DrainDelay; d != nil && (*d < 0 || time.Duration(*d) > maxDrainDelay) {
		fail("drain_delay", "%v is not between 0s and %v", time.Duration(*d), maxDrainDelay)
	}
	return errors.Join(errs...)
}

// maxDrainDelay keeps a slip of the unit from making a node that cannot be
// stopped.
const maxDrainDelay = 10 * time.Minute

// withPort completes a manager's address.
func withPort(m string) (string, error) {
	if strings.Contains(m, "://") || strings.ContainsAny(m, "/ ") || m == "" {
		return "", fmt.Errorf("%q is not an address; write host:port without https://", m)
	}
	host, port, err := net.SplitHostPort(m)
	if err != nil {
		if strings.Count(m, ":") > 1 && !strings.HasPrefix(m, "[") {
			host, port = m, strconv.Itoa(binnacle.PortNode) // an IPv6 address
		} else {
			host, port = strings.Trim(m, "[]"), strconv.Itoa(binnacle.PortNode)
		}
	}
	if host == "" || !isPort(port, 1) {
		return "", fmt.Errorf("%q is not an address; write host:port", m)
	}
	return net.JoinHostPort(host, port), nil
}

func isPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && least <= n && n <= 65535
}

var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// hostName is the host's name as far as it can be a node's.
func hostName() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	h, _, _ = strings.Cut(strings.ToLower(h), ".")
	h = strings.Trim(notInNames.ReplaceAllString(h, "-"), "-._")
	if binnacle.CheckName("node", h) != nil {
		return ""
	}
	return h
}

// DefaultStateDir is where a node of that name keeps its state if its block
// does not say: the folder that systemd made for the service
// (StateDirectory=), else /var/lib/binnacle/<name>. It is not beside the
// configuration, which is often read-only.
func DefaultStateDir(name string) string {
	if d, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); d != "" {
		return d
	}
	if name == "" {
		name = "gateway"
	}
	return filepath.Join("/var/lib/binnacle", name)
}

// Options returns what the block asks of an agent for the node whose own file
// is configFile.
func (b *Block) Options(configFile string) agent.Options {
	o := agent.DefaultOptions()
	dir := filepath.Dir(configFile)
	within := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	o.ConfigFile = configFile
	o.Managers = b.Manager
	o.TokenFile = within(b.TokenFile)
	if o.Name = b.Name; o.Name == "" {
		o.Name = hostName()
	}
	o.Group, o.Labels, o.Advertise = b.Group, b.Labels, b.Advertise
	if o.StateDir = within(b.StateDir); o.StateDir == "" {
		o.StateDir = DefaultStateDir(o.Name)
	}
	if b.Gossip != "" {
		o.Gossip = b.Gossip
	}
	o.Allow = engine.AllowList{Env: b.Allow.Env, Files: b.Allow.Files}
	if d := b.DrainDelay; d != nil {
		o.DrainDelay = time.Duration(*d)
	}
	if n := b.SpoolBytes; n != nil {
		if o.SpoolBytes = *n; *n == 0 {
			o.SpoolBytes = -1
		}
	}
	return o
}
