// Package grafana holds the dashboards that ship with Binnacle, as Go code that
// generates Grafana's JSON, and the provisioning files for its data sources.
// The generated files stand in dashboards/ as golden files and are what
// compose.yaml mounts; a test keeps code and files equal. Install brings both
// into a running Grafana through its HTTP API.
// The manager imports it to offer the files for download.
package grafana

import (
	"embed"
	"encoding/json"
	"fmt"
)

// Files are the provisioning files and the generated dashboards, as they are
// mounted into a Grafana: provisioning/… and dashboards/….
//
//go:embed provisioning dashboards
var Files embed.FS

// UIDs of the provisioned data sources; panels refer to them.
const (
	MetricsUID = "binnacle-metrics"
	TracesUID  = "binnacle-traces"
)

// Dashboards returns all dashboards by the name of their file.
func Dashboards() map[string]Dashboard {
	return map[string]Dashboard{
		"fleet.json":      fleet(),
		"node.json":       node(),
		"backend.json":    backend(),
		"endpoint.json":   endpoint(),
		"rollout.json":    rollout(),
		"manager.json":    internals(),
		"membership.json": membership(),
		"runtime.json":    runtime(),
		"stock.json":      stock(),
	}
}

// Encode returns a dashboard as its file has it.
func (d Dashboard) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the dashboard %s: %w", d.UID, err)
	}
	return append(b, '\n'), nil
}
