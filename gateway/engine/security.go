package engine

import (
	"net/http"

	"github.com/gin-gonic/gin"
	botdetector "github.com/krakend/krakend-botdetector/v2"
	botdetectorconfig "github.com/krakend/krakend-botdetector/v2/krakend"
	krakendcors "github.com/krakend/krakend-cors/v2"
	cors "github.com/krakend/krakend-cors/v2/mux"
	httpsecure "github.com/krakend/krakend-httpsecure/v2"
	httpsecuregin "github.com/krakend/krakend-httpsecure/v2/gin"
	"github.com/luraproject/lura/v2/config"
)

// crossOrigin returns the CORS handler of the service; nil when it has none.
// It stands before the router, so that preflights for any path are answered.
func (b *builder) crossOrigin() (wrap func(http.Handler) http.Handler) {
	const n = "security/cors"
	block, ok := b.cfg.ExtraConfig[krakendcors.Namespace].(map[string]any)
	if !ok {
		return nil
	}
	// The debug log of the module is a goroutine that never ends.
	quiet := map[string]any{}
	for k, v := range block {
		if k != "debug" {
			quiet[k] = v
		}
	}
	b.register(b.blockPath("", byName[n]), n, func() {
		wrap = cors.New(config.ExtraConfig{krakendcors.Namespace: quiet}).Handler
	})
	return wrap
}

// secure adds the header and host checks of security/http.
func (b *builder) secure(r *gin.Engine) {
	const n = "security/http"
	if _, ok := b.cfg.ExtraConfig[httpsecure.Namespace]; !ok {
		return
	}
	path := b.blockPath("", byName[n])
	b.register(path, n, func() {
		if err := httpsecuregin.Register(b.cfg.ExtraConfig, r); err != nil {
			b.fault(path, "%v", err)
		}
	})
}

// botDetector returns what answers bots with 403; nil when e has no detector.
// The module's own handlers go without a detector that cannot be made, and log
// each bot.
func (b *builder) botDetector(at string, e config.ExtraConfig) gin.HandlerFunc {
	conf, err := botdetectorconfig.ParseConfig(e)
	if err == botdetectorconfig.ErrNoConfig { //nolint:errorlint // compared as the module does
		return nil
	}
	path := b.blockPath(at, byName["security/bot-detector"])
	if err != nil {
		b.fault(path, "%v", err)
		return nil
	}
	isBot, err := botdetector.New(conf)
	if err != nil {
		b.fault(path, "%v", err)
		return nil
	}
	return func(c *gin.Context) {
		if isBot(c.Request) {
			c.AbortWithStatus(http.StatusForbidden)
		}
	}
}
