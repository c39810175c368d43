package engine

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strconv"
	"time"

	"github.com/luraproject/lura/v2/config"
	luragin "github.com/luraproject/lura/v2/router/gin"
	"github.com/luraproject/lura/v2/transport/http/server"
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

// SettingsOf reads the server settings of a configuration without building it.
func SettingsOf(raw []byte) (ServerSettings, error) {
	cfg, faults := parse(raw)
	if len(faults) > 0 {
		return ServerSettings{}, fmt.Errorf("read the server settings: %w", &BuildError{faults})
	}
	return settingsOf(cfg), nil
}

func settingsOf(cfg config.ServiceConfig) ServerSettings {
	s := ServerSettings{
		ListenIP:          cfg.Address,
		Port:              cfg.Port,
		ReadTimeout:       cfg.ReadTimeout,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		H2C:               cfg.UseH2C || routerOptions(cfg.ExtraConfig).UseH2C,
		MaxShutdownWait:   cfg.MaxShutdownDuration,
	}
	if cfg.TLS != nil && !cfg.TLS.IsDisabled {
		s.TLS = cfg.TLS
	}
	return s
}

// Addr returns host:port to listen on.
func (s ServerSettings) Addr() string { return net.JoinHostPort(s.ListenIP, strconv.Itoa(s.Port)) }

// Changed names the keys in which s and o differ, in the configuration's own
// spelling, sorted; none means that s's sockets and server serve o as well.
func (s ServerSettings) Changed(o ServerSettings) []string {
	var keys []string
	for _, k := range []struct {
		name string
		same bool
	}{
		{"idle_timeout", s.IdleTimeout == o.IdleTimeout},
		{"listen_ip", s.ListenIP == o.ListenIP},
		{"max_header_bytes", s.MaxHeaderBytes == o.MaxHeaderBytes},
		{"max_shutdown_wait_time", s.MaxShutdownWait == o.MaxShutdownWait},
		{"port", s.Port == o.Port},
		{"read_header_timeout", s.ReadHeaderTimeout == o.ReadHeaderTimeout},
		{"read_timeout", s.ReadTimeout == o.ReadTimeout},
		{"tls", reflect.DeepEqual(s.TLS, o.TLS)},
		{"use_h2c", s.H2C == o.H2C},
		{"write_timeout", s.WriteTimeout == o.WriteTimeout},
	} {
		if !k.same {
			keys = append(keys, k.name)
		}
	}
	return keys
}

// tlsConfig loads the certificates that s names; nil for plain HTTP.
func (s ServerSettings) tlsConfig() (*tls.Config, error) {
	if s.TLS == nil {
		return nil, nil
	}
	log := &luraLog{log: discard, building: true}
	conf := server.ParseTLSConfigWithLogger(s.TLS, log)
	if errs := log.take(); len(errs) > 0 {
		return nil, fmt.Errorf("tls: %s", errs[0])
	}
	keys := s.TLS.Keys
	if s.TLS.PublicKey != "" || s.TLS.PrivateKey != "" {
		keys = append(keys[:len(keys):len(keys)], config.TLSKeyPair{PublicKey: s.TLS.PublicKey, PrivateKey: s.TLS.PrivateKey})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("tls: no certificate is named; set public_key and private_key, or disabled")
	}
	for _, k := range keys {
		cert, err := tls.LoadX509KeyPair(k.PublicKey, k.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("tls: load certificate %q with key %q: %w", k.PublicKey, k.PrivateKey, err)
		}
		conf.Certificates = append(conf.Certificates, cert)
	}
	return conf, nil
}

// routerConfig is the router block of extra_config.
//
// Source: luraproject/lura router/gin/engine.go, whose type is not exported.
type routerConfig struct {
	DisableRedirectTrailingSlash  bool     `json:"disable_redirect_trailing_slash"`
	DisableRedirectFixedPath      bool     `json:"disable_redirect_fixed_path"`
	DisableHandleMethodNotAllowed bool     `json:"disable_handle_method_not_allowed"`
	ForwardedByClientIP           *bool    `json:"forwarded_by_client_ip"`
	RemoteIPHeaders               []string `json:"remote_ip_headers"`
	TrustedProxies                []string `json:"trusted_proxies"`
	AppEngine                     bool     `json:"app_engine"`
	MaxMultipartMemory            int64    `json:"max_multipart_memory"`
	RemoveExtraSlash              bool     `json:"remove_extra_slash"`
	LoggerSkipPaths               []string `json:"logger_skip_paths"`
	AutoOptions                   bool     `json:"auto_options"`
	ReturnErrorMsg                bool     `json:"return_error_msg"`
	DisableHealth                 bool     `json:"disable_health"`
	HealthPath                    string   `json:"health_path"`
	DisableAccessLog              bool     `json:"disable_access_log"`
	DisablePathDecoding           bool     `json:"disable_path_decoding"`
	HideVersionHeader             bool     `json:"hide_version_header"`
	UseH2C                        bool     `json:"use_h2c"`
	// ErrorBody is KrakenD's own addition, for requests that match nothing.
	ErrorBody struct {
		NotFound         any `json:"404"`
		MethodNotAllowed any `json:"405"`
	} `json:"error_body"`
}

func (r routerConfig) healthPath() string { return cmp.Or(r.HealthPath, "/__health") }

// routerOptions reads the router block. As in Lura, a block that does not fit
// is no block; the build says so as a fault (checkRouter).
func routerOptions(e config.ExtraConfig) routerConfig {
	r, err := checkRouter(e)
	if err != nil {
		return routerConfig{}
	}
	return r
}

func checkRouter(e config.ExtraConfig) (r routerConfig, err error) {
	block, ok := e[luragin.Namespace]
	if !ok {
		return r, nil
	}
	if err := remarshal(block, &r); err != nil {
		return r, fmt.Errorf("extra_config \"router\": %w", err)
	}
	return r, nil
}

// remarshal decodes a block that was parsed into maps.
func remarshal(block, into any) error {
	b, err := json.Marshal(block)
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, into)
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return errors.New(typeText(typ))
	}
	return err
}
