package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	revokerconfig "github.com/krakend/bloomfilter/v2/krakend"
	"github.com/krakend/krakend-jose/v2"
	ginjose "github.com/krakend/krakend-jose/v2/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/logging"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

// Times of a signer whose key is not there yet.
const (
	// signerPatience is what a build waits for the key: a provider that is
	// away must hold up neither a swap nor a start.
	signerPatience = 2 * time.Second
	// signerRetry is the least time between two attempts.
	signerRetry = time.Second
)

// sharedKeys turns on, for the life of the process, the cache of keys that all
// validators share.
func (b *builder) sharedKeys() {
	const n = "auth/validator"
	if b.dry {
		return
	}
	if err := jose.SetGlobalCacher(b.lura, b.cfg.ExtraConfig); err != nil && err != jose.ErrNoValidatorCfg { //nolint:errorlint // compared as the module does
		b.fault(b.blockPath("", byName[n]), "%v", err)
	}
}

// rejecterFactory hands out the check for revoked tokens.
func rejecterFactory(r *revokerconfig.Rejecter) jose.RejecterFactory {
	if r == nil {
		return jose.NopRejecterFactory{}
	}
	return jose.RejecterFactoryFunc(func(logging.Logger, *config.EndpointConfig) jose.Rejecter {
		return jose.RejecterFunc(r.RejectToken)
	})
}

// validator wraps next in the token validation of endpoints. Where the module
// would answer everything with 401, because it cannot read its configuration,
// there is a fault.
func (b *builder) validator(at string, next luragin.HandlerFactory) luragin.HandlerFactory {
	validated := ginjose.TokenSignatureValidator(next, b.lura, rejecterFactory(b.rejecter))
	return func(e *config.EndpointConfig, p proxy.Proxy) gin.HandlerFunc {
		if _, ok := e.ExtraConfig[jose.ValidatorNamespace]; !ok {
			return next(e, p)
		}
		path := b.blockPath(at, byName["auth/validator"])
		if _, err := jose.GetSignatureConfig(e); err != nil {
			b.fault(path, "%s", joseText(err))
			return next(e, p)
		}
		if b.dry {
			e = withoutFiles(e, jose.ValidatorNamespace)
		}
		var h gin.HandlerFunc
		b.register(path, "auth/validator", func() { h = validated(e, p) }) // the module calls Fatal
		return h
	}
}

func joseText(err error) string {
	if err == jose.ErrInsecureJWKSource { //nolint:errorlint // as the module returns it
		return "jwk_url is not https; set disable_jwk_security to allow that, also with jwk_local_path"
	}
	return err.Error()
}

// withoutFiles is e with a jose block that opens neither a file nor a
// connection while it is built: those are the node's.
func withoutFiles(e *config.EndpointConfig, ns string) *config.EndpointConfig {
	block, ok := e.ExtraConfig[ns].(map[string]any)
	if !ok {
		return e
	}
	block = maps.Clone(block)
	for _, key := range []string{"jwk_local_path", "jwk_local_ca", "secret_url", "cache"} {
		delete(block, key)
	}
	dry := *e
	dry.ExtraConfig = maps.Clone(e.ExtraConfig)
	dry.ExtraConfig[ns] = block
	return &dry
}

// signed returns the handler of an endpoint whose answers are signed; ok is
// false for all others. It does what the module's does, and stands innermost
// of the endpoint's handlers: the module leaves out those within.
func (b *builder) signed(at string, e *config.EndpointConfig, p proxy.Proxy) (h gin.HandlerFunc, ok bool) {
	block, ok := e.ExtraConfig[jose.SignerNamespace]
	if !ok {
		return nil, false
	}
	path := b.blockPath(at, byName["auth/signer"])
	refuse := func(err string) (gin.HandlerFunc, bool) {
		b.fault(path, "%s", err)
		return nil, false
	}
	var c jose.SignerConfig
	if err := remarshal(block, &c); err != nil { // noted with its shape
		return nil, false
	}
	if _, known := jose.SupportedAlgorithm(c.Alg); !known {
		return refuse(fmt.Sprintf("alg %q is not known", c.Alg))
	}
	if !strings.HasPrefix(c.URI, "https://") && !c.DisableJWKSecurity {
		return refuse(joseText(jose.ErrInsecureJWKSource))
	}
	if b.dry { // keys are the node's
		return nil, false
	}
	s := &signer{keys: c.KeysToSign, done: make(chan error, 1)}
	s.fetch = func() (jose.Signer, error) {
		_, sign, err := jose.NewSigner(e, nil)
		return sign, err
	}
	s.trying.Store(true)
	go s.attempt() // ends with its connection
	select {
	case err := <-s.done:
		if err != nil && c.LocalPath != "" {
			return refuse(err.Error())
		}
		if err != nil {
			b.log.Warn("the key of auth/signer could not be fetched; its endpoint answers 503 until it can", "endpoint", template(e.Endpoint), "err", err)
		}
	case <-time.After(signerPatience):
		b.log.Warn("the key of auth/signer does not come; its endpoint answers 503 until it does", "endpoint", template(e.Endpoint))
	}
	request := luragin.NewRequest(e.HeadersToPass)
	return func(c *gin.Context) { s.serve(c, e, p, request) }, true
}

// signer signs answers of one endpoint. Its key may have to be fetched: until
// there is one the endpoint answers 503 and tries again. KrakenD's answers 401
// until the next start.
type signer struct {
	keys   []string // the fields that become tokens
	fetch  func() (jose.Signer, error)
	done   chan error // the first attempt
	trying atomic.Bool
	last   atomic.Int64 // Unix ns of the last attempt
	sign   atomic.Pointer[jose.Signer]
}

// attempt runs with trying set.
func (s *signer) attempt() {
	sign, err := s.fetch()
	if err == nil {
		s.sign.Store(&sign)
	}
	s.last.Store(time.Now().UnixNano())
	s.trying.Store(false)
	select {
	case s.done <- err:
	default:
	}
}

// serve answers as the module does.
//
// Source: krakend-jose, gin/jose.go, TokenSigner.
func (s *signer) serve(c *gin.Context, e *config.EndpointConfig, p proxy.Proxy, request func(*gin.Context, []string) *proxy.Request) {
	sign := s.sign.Load()
	if sign == nil {
		if time.Since(time.Unix(0, s.last.Load())) > signerRetry && s.trying.CompareAndSwap(false, true) {
			go s.attempt()
		}
		c.Header("Retry-After", "1")
		c.AbortWithStatus(http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(c, e.Timeout)
	defer cancel()
	resp, err := p(ctx, request(c, e.QueryString))
	if err == nil && resp == nil {
		err = errors.New("the backend gave no answer to sign")
	}
	if err == nil {
		err = jose.SignFields(s.keys, *sign, resp)
	}
	if err != nil {
		_ = c.AbortWithError(http.StatusBadRequest, err) // it returns what it was given
		return
	}
	for k, v := range resp.Metadata.Headers {
		c.Header(k, v[0])
	}
	c.JSON(resp.Metadata.StatusCode, resp.Data)
}
