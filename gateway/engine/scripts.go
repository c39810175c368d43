package engine

import (
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	jsonschema "github.com/krakend/krakend-jsonschema/v2"
	lua "github.com/krakend/krakend-lua/v2"
	luaproxy "github.com/krakend/krakend-lua/v2/proxy"
	luagin "github.com/krakend/krakend-lua/v2/router/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
	luaparse "github.com/yuin/gopher-lua/parse"
)

// luaOK reports whether the block at name can be built, and notes what speaks
// against it: the module goes without a script that it cannot load, and finds
// out that one does not parse when the first request comes. Files are the
// node's, so a check does not open them and builds nothing.
func (b *builder) luaOK(at, name string, e config.ExtraConfig) bool {
	n := byName[name]
	block, ok := e[n.key()].(map[string]any)
	if !ok {
		return false
	}
	path := b.blockPath(at, n)
	faults := len(b.faults)
	for _, key := range []string{"pre", "post"} {
		src, _ := block[key].(string)
		b.luaParses(path+"/"+key, key, src)
	}
	if b.dry {
		return false
	}
	conf, err := lua.Parse(b.lura, e, n.key())
	if err != nil {
		b.fault(path, "%v", err)
		return false
	}
	b.luraErrors(path) // sources that could not be read
	for _, source := range slices.Sorted(slices.Values(conf.Sources)) {
		if src, ok := conf.Get(source); ok {
			b.luaParses(path+"/sources", source, src)
		} else if live, _ := block["live"].(bool); live {
			b.fault(path+"/sources", "%s cannot be read", source)
		}
	}
	return len(b.faults) == faults
}

func (b *builder) luaParses(path, name, src string) {
	if _, err := luaparse.Parse(strings.NewReader(src), name); err != nil {
		b.fault(path, "the script does not parse: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
}

// luaService adds the service's script before all endpoints.
func (b *builder) luaService(r *gin.Engine) {
	if b.luaOK("", "modifier/lua-endpoint", b.cfg.ExtraConfig) {
		luagin.Register(b.lura, b.cfg.ExtraConfig, r)
	}
}

// luaHandler wraps next in the scripts of endpoints.
func (b *builder) luaHandler(at string, next luragin.HandlerFactory) luragin.HandlerFactory {
	scripted := luagin.HandlerFactory(b.lura, next)
	return func(e *config.EndpointConfig, p proxy.Proxy) gin.HandlerFunc {
		if !b.luaOK(at, "modifier/lua-endpoint", e.ExtraConfig) {
			return next(e, p)
		}
		return scripted(e, p)
	}
}

// validated wraps next in the JSON schemas of endpoints. What the module logs
// about a schema becomes a fault.
func (b *builder) validated(next proxy.Factory) proxy.Factory {
	return jsonschema.ProxyFactory(b.lura, next)
}

// luaEndpointProxy wraps next in the scripts of endpoints' proxies.
func (b *builder) luaEndpointProxy(next proxy.Factory) proxy.Factory {
	scripted := luaproxy.ProxyFactory(b.lura, next)
	return proxy.FactoryFunc(func(e *config.EndpointConfig) (proxy.Proxy, error) {
		if !b.luaOK(b.endpointPaths[e], "modifier/lua-proxy", e.ExtraConfig) {
			return next.New(e)
		}
		return scripted.New(e)
	})
}

// luaBackend wraps next in the scripts of backends.
func (b *builder) luaBackend(next proxy.BackendFactory) proxy.BackendFactory {
	scripted := luaproxy.BackendFactory(b.lura, next)
	return func(remote *config.Backend) proxy.Proxy {
		if !b.luaOK(b.backendPaths[remote], "modifier/lua-backend", remote.ExtraConfig) {
			return next(remote)
		}
		return scripted(remote)
	}
}
