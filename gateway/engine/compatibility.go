package engine

import (
	"fmt"
	"strings"

	revokerconfig "github.com/krakend/bloomfilter/v2/krakend"
	botdetector "github.com/krakend/krakend-botdetector/v2"
	botdetectorconfig "github.com/krakend/krakend-botdetector/v2/krakend"
	"github.com/krakend/krakend-circuitbreaker/v3/gobreaker"
	"github.com/krakend/krakend-cors/v2"
	"github.com/krakend/krakend-gelf/v2"
	"github.com/krakend/krakend-gologging/v2"
	"github.com/krakend/krakend-httpcache/v2"
	"github.com/krakend/krakend-httpsecure/v2"
	"github.com/krakend/krakend-jose/v2"
	"github.com/krakend/krakend-jsonschema/v2"
	"github.com/krakend/krakend-logstash/v2"
	luaproxy "github.com/krakend/krakend-lua/v2/proxy"
	luarouter "github.com/krakend/krakend-lua/v2/router"
	"github.com/krakend/krakend-oauth2-clientcredentials/v2"
	limitproxy "github.com/krakend/krakend-ratelimit/v3/proxy"
	limitrouter "github.com/krakend/krakend-ratelimit/v3/router"
	"github.com/luraproject/lura/v2/proxy"
	router "github.com/luraproject/lura/v2/router/gin"
	httpclient "github.com/luraproject/lura/v2/transport/http/client"
	"github.com/luraproject/lura/v2/transport/http/client/graphql"
)

// nsTelemetry is the block that krakend-otel reads; the engine reads what maps
// to its own telemetry.
const nsTelemetry = "telemetry/opentelemetry"

// namespaces is the table of everything that an extra_config of KrakenD can
// hold. Check, Warnings, the build and docs/compatibility.md all come from it.
//
// Source: krakend-ce, cmd/krakend-ce/main.go (names and aliases), and the
// documentation of KrakenD 2.13.
var namespaces = []namespace{
	// What Lura itself reads.
	{name: "proxy", module: proxy.Namespace, levels: atEndpoint | atBackend,
		note: "sequential, static, shadow, flatmap_filter, combiner"},
	{name: "router", module: router.Namespace, aliases: []string{"github.com/luraproject/lura/router/gin"}, levels: atService,
		note: "all keys, `error_body` included"},
	{name: "backend/http", module: httpclient.Namespace, levels: atBackend,
		note: "`return_error_details`, `return_error_code`"},
	{name: "backend/http/client", levels: atBackend,
		note: "as far as Lura reads it"},
	{name: "backend/graphql", module: graphql.Namespace, levels: atBackend},

	// Authentication.
	{name: "auth/validator", module: jose.ValidatorNamespace, levels: atService | atEndpoint, shape: validatorShape{},
		note: "what KrakenD answers with 401 for ever (an unknown algorithm, an insecure `jwk_url`) is refused. `shared_cache_duration` holds for the life of the process, the first one wins"},
	{name: "auth/signer", module: jose.SignerNamespace, levels: atEndpoint, shape: jose.SignerConfig{},
		note: "rate limit and Lua of the endpoint run too, which they do not in KrakenD. While the key cannot be fetched, the endpoint answers 503 and tries again"},
	{name: "auth/revoker", module: revokerconfig.Namespace, levels: atService, shape: revokerconfig.Config{},
		note: "revocations survive a swap, and are lost with the process. `BloomfilterRPC.Union` is not served: a malformed filter would end the process"},
	{name: "auth/client-credentials", module: oauth2client.Namespace, levels: atBackend, shape: clientCredentials{}, exact: true,
		note: "tokens are fetched with the service's own `client_tls` and within 10 s"},

	// Security.
	{name: "security/cors", module: cors.Namespace, levels: atService, shape: corsShape{}, exact: true,
		note: "`debug` has no effect"},
	{name: "security/http", module: httpsecure.Namespace, levels: atService, shape: secureShape{}, exact: true},
	{name: "security/bot-detector", module: botdetectorconfig.Namespace, levels: atService | atEndpoint, shape: botdetector.Config{},
		note: "refused requests are counted (403) and not logged one by one"},

	// Quality of service.
	{name: "qos/ratelimit/router", module: limitrouter.Namespace, aliases: []string{"github.com/devopsfaith/krakend-ratelimit/juju/router"},
		levels: atEndpoint, shape: routerLimitShape{}, exact: true,
		note: "`client_capacity` defaults to `client_max_rate`, as KrakenD's documentation says. Buckets start anew at a swap. A bucket is filled again when it is empty, as in KrakenD: after a pause a client gets up to twice its capacity at once"},
	{name: "qos/ratelimit/proxy", module: limitproxy.Namespace, aliases: []string{"github.com/devopsfaith/krakend-ratelimit/juju/proxy"},
		levels: atBackend, shape: proxyLimitShape{}, exact: true, note: "buckets start anew at a swap"},
	{name: "qos/circuit-breaker", module: gobreaker.Namespace, levels: atBackend, shape: breakerShape{}, exact: true,
		note: "breakers start closed at a swap"},
	{name: "qos/http-cache", module: httpcache.Namespace, levels: atBackend, shape: cacheShape{},
		note: "a `shared` cache lives as long as the process, with the size of its first configuration. Without `max_size` and `max_items` a cache has no bound, as in KrakenD"},

	// Validation.
	{name: "validation/json-schema", module: jsonschema.Namespace, levels: atEndpoint,
		note: "a schema that does not compile is refused; KrakenD goes without"},

	// Scripts.
	{name: "modifier/lua-endpoint", module: luarouter.Namespace, levels: atService | atEndpoint, shape: luaShape{}, exact: true,
		note: "scripts that do not parse, missing sources and wrong checksums are refused; KrakenD goes without"},
	{name: "modifier/lua-proxy", module: luaproxy.ProxyNamespace, levels: atEndpoint, shape: luaShape{}, exact: true,
		note: "the same"},
	{name: "modifier/lua-backend", module: luaproxy.BackendNamespace, levels: atBackend, shape: luaShape{}, exact: true,
		note: "the same"},

	// Telemetry and logs.
	{name: nsTelemetry, levels: atService | atEndpoint | atBackend,
		note: "`service_name`, `service_version`, `deploy_env`, `trace_sample_rate`, `skip_paths`, `metric_reporting_period`, `exporters.otlp` (gRPC and HTTP), and of `layers`: static attributes, headers on spans, and the spans that a file asks for by name ([more detail](gateway.md#more-detail-in-traces)); the rest with a warning. A node of a cluster sends to its manager besides, at the pace of its plan. Metrics are those of the semantic conventions, as exponential histograms"},
	{name: "telemetry/logging", module: gologging.Namespace, levels: atService, shape: loggingShape{}, exact: true,
		note: "for what Lura and its modules say. Lines go through a queue, so that a slow receiver slows no request; what exceeds it is counted and dropped"},
	{name: "telemetry/logstash", module: logstash.Namespace, levels: atService, note: "needs telemetry/logging, as in KrakenD"},
	{name: "telemetry/gelf", module: gelf.Namespace, levels: atService, shape: gelfShape{}, exact: true,
		note: "through the same queue; takes the access log too"},
	{name: "telemetry/metrics", module: "github_com/devopsfaith/krakend-metrics", levels: atService, support: ignored,
		note: "the gateway has metrics of its own, by OpenTelemetry; there is no port for /__stats"},
	{name: "telemetry/influx", module: "github_com/letgoapp/krakend-influx", aliases: []string{"github_com/devopsfaith/krakend-influx"},
		levels: atService, support: ignored, note: "the gateway has metrics of its own, by OpenTelemetry"},
	{name: "telemetry/influx2", module: "github_com/Jozefiel/krakend-influx2", levels: atService, support: ignored,
		note: "the gateway has metrics of its own, by OpenTelemetry"},
	{name: "telemetry/opencensus", module: "github_com/devopsfaith/krakend-opencensus", levels: atService | atEndpoint | atBackend, support: ignored,
		note: "the gateway has metrics and traces of its own, by OpenTelemetry"},

	// What needs a module that cannot be had, or a library loaded at run time.
	{name: "validation/cel", module: "github.com/devopsfaith/krakend-cel", levels: atEndpoint | atBackend, support: refused,
		note: "requests would pass unchecked"},
	{name: "modifier/martian", module: "github.com/devopsfaith/krakend-martian", levels: atBackend, support: refused,
		note: "the modifiers would not run"},
	{name: "backend/lambda", module: "github.com/devopsfaith/krakend-lambda", levels: atBackend, support: refused,
		note: "there would be no backend"},
	{name: "backend/amqp/consumer", module: "github.com/devopsfaith/krakend-amqp/consume", levels: atBackend, support: refused,
		note: "there would be no backend"},
	{name: "backend/amqp/producer", module: "github.com/devopsfaith/krakend-amqp/produce", levels: atBackend, support: refused,
		note: "there would be no backend"},
	{name: "backend/pubsub/publisher", module: "github.com/devopsfaith/krakend-pubsub/publisher", levels: atBackend, support: refused,
		note: "there would be no backend"},
	{name: "backend/pubsub/subscriber", module: "github.com/devopsfaith/krakend-pubsub/subscriber", levels: atBackend, support: refused,
		note: "there would be no backend"},
	{name: "async/amqp", module: "github.com/devopsfaith/krakend-amqp/agent", levels: atAgent, support: refused,
		note: "nothing would be consumed"},
	{name: "plugin/http-server", module: "github_com/devopsfaith/krakend/transport/http/server/handler", levels: atService, support: refused,
		note: "the plugin would not run"},
	{name: "plugin/http-client", module: "github.com/devopsfaith/krakend/transport/http/client/executor", levels: atBackend, support: refused,
		note: "the plugin would not run"},
	{name: "plugin/req-resp-modifier", module: "github.com/devopsfaith/krakend/proxy/plugin", levels: atEndpoint | atBackend, support: refused,
		note: "the plugin would not run"},
	{name: "documentation/openapi", levels: atService | atEndpoint, support: ignored, note: "it only feeds the generator of documentation"},

	// KrakenD Enterprise.
	{name: "auth/api-keys", levels: atService | atEndpoint, support: refused, enterprise: true, note: "requests would pass without a key"},
	{name: "auth/basic", levels: atService | atEndpoint, support: refused, enterprise: true, note: "requests would pass without a password"},
	{name: "auth/gcp", levels: atBackend, support: refused, enterprise: true, note: "backends would be called without credentials"},
	{name: "auth/ntlm", levels: atBackend, support: refused, enterprise: true, note: "backends would be called without credentials"},
	{name: "auth/aws-sigv4", levels: atBackend, support: refused, enterprise: true, note: "backends would be called without credentials"},
	{name: "security/policies", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "policies would not be enforced"},
	{name: "validation/response-json-schema", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "answers would pass unchecked"},
	{name: "qos/ratelimit/service", levels: atService, support: refused, enterprise: true, note: "requests would pass without a limit"},
	{name: "qos/ratelimit/tiered", levels: atService | atEndpoint, support: refused, enterprise: true, note: "requests would pass without a limit"},
	{name: "governance/quota", levels: atService | atEndpoint | atBackend, support: refused, enterprise: true, note: "requests would pass without a quota"},
	{name: "governance/processors", levels: atService, support: refused, enterprise: true, note: "requests would pass without a quota"},
	{name: "modifier/jmespath", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "answers would not be transformed"},
	{name: "modifier/body-generator", levels: atBackend, support: refused, enterprise: true, note: "bodies would not be generated"},
	{name: "modifier/request-body-generator", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "bodies would not be generated"},
	{name: "modifier/response-body-generator", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "bodies would not be generated"},
	{name: "modifier/response-headers", levels: atService | atEndpoint, support: refused, enterprise: true, note: "headers would not be changed"},
	{name: "backend/grpc", levels: atBackend, support: refused, enterprise: true, note: "there would be no backend"},
	{name: "backend/soap", levels: atBackend, support: refused, enterprise: true, note: "there would be no backend"},
	{name: "backend/static-filesystem", levels: atBackend, support: refused, enterprise: true, note: "there would be no backend"},
	{name: "backend/conditional", levels: atBackend, support: refused, enterprise: true, note: "the condition would not be asked"},
	{name: "server/static-filesystem", levels: atService, support: refused, enterprise: true, note: "files would not be served"},
	{name: "server/virtualhost", levels: atService, support: refused, enterprise: true, note: "hosts would not be told apart"},
	{name: "grpc", levels: atService, support: refused, enterprise: true, note: "there would be no gRPC server"},
	{name: "websocket", levels: atEndpoint, support: refused, enterprise: true, note: "there would be no backend"},
	{name: "workflow", levels: atEndpoint | atBackend, support: refused, enterprise: true, note: "the workflow would not run"},
	{name: "redis", levels: atService, support: ignored, enterprise: true, note: "what would use it is refused"},
	{name: "telemetry/opentelemetry-security", levels: atService, support: ignored, enterprise: true, note: "exporters are the node's own"},
	{name: "telemetry/newrelic", levels: atService, support: ignored, enterprise: true, note: "the gateway has telemetry of its own, by OpenTelemetry"},
	{name: "telemetry/moesif", levels: atService, support: ignored, enterprise: true, note: "the gateway has telemetry of its own, by OpenTelemetry"},
	{name: "telemetry/ganalytics", levels: atService, support: ignored, enterprise: true, note: "the gateway has telemetry of its own, by OpenTelemetry"},
	{name: "telemetry/instana", levels: atService, support: ignored, enterprise: true, note: "the gateway has telemetry of its own, by OpenTelemetry"},
	{name: "documentation/postman", levels: atService | atEndpoint, support: ignored, enterprise: true, note: "it only feeds the generator of documentation"},
}

// Shapes of the blocks that modules read key by key.
type (
	validatorShape struct {
		jose.SignatureConfig
		SharedCacheDuration uint32 `json:"shared_cache_duration"`
	}
	corsShape struct {
		AllowOrigins         []string `json:"allow_origins"`
		AllowMethods         []string `json:"allow_methods"`
		AllowHeaders         []string `json:"allow_headers"`
		ExposeHeaders        []string `json:"expose_headers"`
		AllowCredentials     bool     `json:"allow_credentials"`
		AllowPrivateNetwork  bool     `json:"allow_private_network"`
		OptionsPassthrough   bool     `json:"options_passthrough"`
		OptionsSuccessStatus int      `json:"options_success_status"`
		MaxAge               string   `json:"max_age"`
		Debug                bool     `json:"debug"`
	}
	secureShape struct {
		AllowedHosts         []string          `json:"allowed_hosts"`
		AllowedHostsAreRegex bool              `json:"allowed_hosts_are_regex"`
		HostProxyHeaders     []string          `json:"host_proxy_headers"`
		STSSeconds           int64             `json:"sts_seconds"`
		STSIncludeSubdomains bool              `json:"sts_include_subdomains"`
		ForceSTSHeader       bool              `json:"force_sts_header"`
		FrameOptions         string            `json:"custom_frame_options_value"`
		FrameDeny            bool              `json:"frame_deny"`
		CSP                  string            `json:"content_security_policy"`
		ReferrerPolicy       string            `json:"referrer_policy"`
		ContentTypeNosniff   bool              `json:"content_type_nosniff"`
		BrowserXSSFilter     bool              `json:"browser_xss_filter"`
		IsDevelopment        bool              `json:"is_development"`
		SSLRedirect          bool              `json:"ssl_redirect"`
		SSLHost              string            `json:"ssl_host"`
		SSLProxyHeaders      map[string]string `json:"ssl_proxy_headers"`
	}
	routerLimitShape struct {
		MaxRate        float64 `json:"max_rate"`
		Capacity       uint64  `json:"capacity"`
		ClientMaxRate  float64 `json:"client_max_rate"`
		ClientCapacity uint64  `json:"client_capacity"`
		Strategy       string  `json:"strategy"`
		Key            string  `json:"key"`
		Every          string  `json:"every"`
		NumShards      uint64  `json:"num_shards"`
		CleanupPeriod  string  `json:"cleanup_period"`
		CleanupThreads uint64  `json:"cleanup_threads"`
	}
	proxyLimitShape struct {
		MaxRate  float64 `json:"max_rate"`
		Capacity uint64  `json:"capacity"`
		Every    string  `json:"every"`
	}
	breakerShape struct {
		Name            string `json:"name"`
		Interval        int    `json:"interval"`
		Timeout         int    `json:"timeout"`
		MaxErrors       int    `json:"max_errors"`
		LogStatusChange bool   `json:"log_status_change"`
	}
	cacheShape struct {
		Shared   bool   `json:"shared"`
		MaxSize  uint64 `json:"max_size"`
		MaxItems uint64 `json:"max_items"`
	}
	luaShape struct {
		Sources       []string          `json:"sources"`
		Pre           string            `json:"pre"`
		Post          string            `json:"post"`
		SkipNext      bool              `json:"skip_next"`
		AllowOpenLibs bool              `json:"allow_open_libs"`
		Live          bool              `json:"live"`
		MD5           map[string]string `json:"md5"`
	}
	loggingShape struct {
		Level          string `json:"level"`
		Prefix         string `json:"prefix"`
		Syslog         bool   `json:"syslog"`
		SyslogFacility string `json:"syslog_facility"`
		Stdout         bool   `json:"stdout"`
		Format         string `json:"format"`
		CustomFormat   string `json:"custom_format"`
	}
	gelfShape struct {
		Address   string `json:"address"`
		EnableTCP bool   `json:"enable_tcp"`
	}
)

// compatibilityTable renders the table for docs/compatibility.md.
func compatibilityTable(enterprise bool) string {
	var out strings.Builder
	out.WriteString("| namespace | where | here | notes |\n|---|---|---|---|\n")
	for _, n := range namespaces {
		if n.enterprise != enterprise {
			continue
		}
		note := n.note
		if n.support == refused {
			note = "without it " + note
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", n.name, n.levels, n.support, note)
	}
	return out.String()
}
