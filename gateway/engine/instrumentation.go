package engine

import (
	"net/http"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
	"github.com/luraproject/lura/v2/transport/http/client"
)

// Instrumentation wraps the parts of an engine in the telemetry of another
// library, where KrakenD CE puts it. It stands beside Options.Telemetry, so
// that one engine can be measured with either (see bench/krakendotel); nodes
// have none. All fields must be set; they are called while a configuration is
// built.
type Instrumentation struct {
	// Handler wraps all that is served.
	Handler func(http.Handler) http.Handler
	// Endpoint wraps what makes the handlers of endpoints.
	Endpoint func(luragin.HandlerFactory) luragin.HandlerFactory
	// Proxy wraps what makes the stacks of endpoints, outermost.
	Proxy func(proxy.Factory) proxy.Factory
	// Backend wraps what makes the stacks of backends, outermost.
	Backend func(proxy.BackendFactory) proxy.BackendFactory
	// Executor makes what sends the requests of a backend, through the clients
	// that the factory gives.
	Executor func(client.HTTPClientFactory, *config.Backend) client.HTTPRequestExecutor
}
