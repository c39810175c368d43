package engine

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	httpcache "github.com/krakend/krakend-httpcache/v2"
	oauth2client "github.com/krakend/krakend-oauth2-clientcredentials/v2"
	"github.com/luraproject/lura/v2/config"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokenTimeout bounds the fetch of one access token. All requests of a backend
// wait for it, and the library does not end the wait when they do.
const tokenTimeout = 10 * time.Second

// clientCredentials is the block of auth/client-credentials.
type clientCredentials struct {
	Disabled       bool                `json:"is_disabled"`
	ClientID       string              `json:"client_id"`
	ClientSecret   string              `json:"client_secret"`
	TokenURL       string              `json:"token_url"`
	Scopes         string              `json:"scopes"` // separated by commas
	EndpointParams map[string][]string `json:"endpoint_params"`
}

// client is what all requests of one backend go through: the cache, then the
// credentials, then the measured transport of the generation. KrakenD makes
// one for each request.
func (b *builder) client(remote *config.Backend) *http.Client {
	var transport http.RoundTripper = b.transport
	if b.scope != nil {
		transport = b.scope.NewBackend(b.backendRoute(remote), backendTemplate(remote.URLPattern), b.backendTelemetry(remote).BackendOptions, transport)
	}
	transport = b.authorized(remote, transport)
	base := &http.Client{Transport: transport}
	return httpcache.NewHTTPClient(remote, func(context.Context) *http.Client { return base })(b.ctx)
}

// authorized adds an access token to what goes through next. Tokens are
// fetched by the generation's own transport; the module uses the process-wide
// one, which knows no client_tls and no end.
func (b *builder) authorized(remote *config.Backend, next http.RoundTripper) http.RoundTripper {
	block, ok := remote.ExtraConfig[oauth2client.Namespace]
	if !ok {
		return next
	}
	path := b.blockPath(b.backendPaths[remote], byName["auth/client-credentials"])
	var c clientCredentials
	if err := remarshal(block, &c); err != nil { // noted with its shape
		return next
	}
	if c.Disabled {
		return next
	}
	if u, err := url.Parse(c.TokenURL); err != nil || u.Host == "" {
		b.fault(path+"/token_url", "want the address of the token endpoint, such as https://auth.example.com/token")
		return next
	}
	conf := clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, TokenURL: c.TokenURL, EndpointParams: c.EndpointParams,
	}
	if c.Scopes != "" {
		conf.Scopes = strings.Split(c.Scopes, ",")
	}
	ctx := context.WithValue(b.ctx, oauth2.HTTPClient, &http.Client{Transport: b.transport, Timeout: tokenTimeout})
	return &oauth2.Transport{Source: conf.TokenSource(ctx), Base: next}
}
