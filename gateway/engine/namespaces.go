package engine

import (
	"maps"
	"slices"
	"strings"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	router "github.com/luraproject/lura/v2/router/gin"
	httpclient "github.com/luraproject/lura/v2/transport/http/client"
	"github.com/luraproject/lura/v2/transport/http/client/graphql"
)

// nsTelemetry is the block that krakend-otel reads; the engine reads what maps
// to its own telemetry.
const nsTelemetry = "telemetry/opentelemetry"

// aliases are the names that users write, and those that Lura reads.
var aliases = map[string]string{
	"proxy":           proxy.Namespace,
	"router":          router.Namespace,
	"backend/http":    httpclient.Namespace,
	"backend/graphql": graphql.Namespace,
}

// unalias renames the keys of e to those that Lura reads.
func unalias(e config.ExtraConfig) {
	for name, lura := range aliases {
		if v, ok := e[name]; ok {
			delete(e, name)
			e[lura] = v
		}
	}
}

// supported are the namespaces that do something here.
var supported = map[string]bool{
	proxy.Namespace: true, router.Namespace: true, httpclient.Namespace: true, graphql.Namespace: true,
	nsTelemetry: true,
	// read by Lura's proxy under this name alone
	"backend/http/client": true,
}

// refused are the namespaces that forbid requests or change what an answer
// gives away. Ignoring one would let through what the file keeps out, so a
// configuration that has one is refused until the engine has its module.
var refused = map[string]string{
	"auth/validator":                  "requests would pass without a valid token",
	"auth/revoker":                    "revoked tokens would pass",
	"auth/signer":                     "tokens would go out unsigned",
	"auth/api-keys":                   "requests would pass without a key",
	"auth/basic":                      "requests would pass without a password",
	"auth/client-credentials":         "backends would be called without credentials",
	"auth/gcp":                        "backends would be called without credentials",
	"auth/ntlm":                       "backends would be called without credentials",
	"security/policies":               "policies would not be enforced",
	"security/bot-detector":           "bots would pass",
	"validation/cel":                  "requests would pass unchecked",
	"validation/json-schema":          "requests would pass unchecked",
	"validation/response-json-schema": "answers would pass unchecked",
	"plugin/http-server":              "the plugin would not run",
	"plugin/http-client":              "the plugin would not run",
	"plugin/req-resp-modifier":        "the plugin would not run",
	"modifier/lua-endpoint":           "the script would not run",
	"modifier/lua-proxy":              "the script would not run",
	"modifier/lua-backend":            "the script would not run",
	"modifier/martian":                "the modifiers would not run",
	"backend/lambda":                  "there would be no backend",
	"backend/grpc":                    "there would be no backend",
	"backend/soap":                    "there would be no backend",
	"backend/amqp/consumer":           "there would be no backend",
	"backend/amqp/producer":           "there would be no backend",
	"backend/pubsub/publisher":        "there would be no backend",
	"backend/pubsub/subscriber":       "there would be no backend",
	"websocket":                       "there would be no backend",
	"github.com/devopsfaith/krakend-jose/validator": "requests would pass without a valid token",
	"github.com/devopsfaith/krakend-jose/signer":    "tokens would go out unsigned",
	"github.com/devopsfaith/krakend-cel":            "requests would pass unchecked",
	"github.com/devopsfaith/krakend-jsonschema":     "requests would pass unchecked",
}

// classify returns the names, sorted, of the namespaces of e that are refused
// and of those that are ignored.
func classify(e config.ExtraConfig) (refuse, ignore []string) {
	for _, name := range slices.Sorted(maps.Keys(e)) {
		switch {
		case supported[name], isComment(name):
		case refused[name] != "":
			refuse = append(refuse, name)
		default:
			ignore = append(ignore, name)
		}
	}
	return refuse, ignore
}

// isComment reports whether KrakenD's schema sets a key aside for others, as
// the cluster block's.
func isComment(key string) bool { return key != "" && strings.IndexByte("@$_#", key[0]) >= 0 }
