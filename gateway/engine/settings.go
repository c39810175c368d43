package engine

import (
	"time"

	"github.com/luraproject/lura/v2/config"
)

// ServerSettings are the keys of a configuration that belong to the listening
// sockets and the HTTP server. A swap does not change them: whoever owns the
// sockets compares them (Changed) and starts another worker.
type ServerSettings struct {
	// ListenIP is empty for all addresses.
	ListenIP string
	Port     int

	ReadTimeout       time.Duration
	WriteTimeout      time.Duration
	IdleTimeout       time.Duration
	ReadHeaderTimeout time.Duration
	MaxHeaderBytes    int
	// H2C allows HTTP/2 without TLS.
	H2C bool
	// MaxShutdownWait bounds a drain; 0 is no bound of its own.
	MaxShutdownWait time.Duration
	// TLS is nil for plain HTTP.
	TLS *TLSSettings
}

// TLSSettings is the tls block of a configuration.
type TLSSettings = config.TLS

// TelemetrySettings are the keys of the telemetry/opentelemetry block that a
// worker needs before its first build.
type TelemetrySettings struct {
	// ServiceName is empty when the configuration does not say it.
	ServiceName    string
	ServiceVersion string
	// SampleRatio is negative when the configuration does not say it.
	SampleRatio float64
}

// SettingsOf reads the server settings of a configuration without building it.
func SettingsOf(raw []byte) (ServerSettings, error) { return ServerSettings{}, nil }

// TelemetrySettingsOf reads the telemetry settings of a configuration without
// building it.
func TelemetrySettingsOf(raw []byte) (TelemetrySettings, error) { return TelemetrySettings{}, nil }

// Addr returns host:port to listen on.
func (s ServerSettings) Addr() string { return "" }

// Changed names the keys in which s and o differ, in the configuration's own
// spelling, sorted; none means that s's sockets and server serve o as well.
func (s ServerSettings) Changed(o ServerSettings) []string { return nil }
