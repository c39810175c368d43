package membership

import (
	"net/url"

	"github.com/binnacle-project/binnacle/api"
)

// Traefik is a dynamic configuration of Traefik with services and nothing else:
// the operator's own routers name them, as binnacle-GROUP@http.
//
// Source: Traefik 3, "HTTP provider" and "Services".
type Traefik struct {
	HTTP TraefikHTTP `json:"http"`
}

// TraefikHTTP holds the services by name.
type TraefikHTTP struct {
	Services map[string]TraefikService `json:"services"`
}

// TraefikService is one load-balanced service.
type TraefikService struct {
	LoadBalancer TraefikLoadBalancer `json:"loadBalancer"`
}

// TraefikLoadBalancer holds its servers.
type TraefikLoadBalancer struct {
	Servers     []TraefikServer     `json:"servers"`
	HealthCheck *TraefikHealthCheck `json:"healthCheck,omitempty"`
}

// TraefikServer is one server.
type TraefikServer struct {
	URL string `json:"url"`
}

// TraefikHealthCheck says how Traefik probes the servers.
type TraefikHealthCheck struct {
	Path     string `json:"path"`
	Interval string `json:"interval"`
	Timeout  string `json:"timeout"`
}

// TraefikConfig lists nodes as services of Traefik, one for each group. Give it
// the nodes that are in traffic. scheme is http or https; an empty health leaves
// the health check out. Groups without a node are given so that their services
// stay, with no server: a router that names a service that is gone answers 404,
// one whose service is empty 503.
func TraefikConfig(nodes []api.Node, groups []string, scheme, health string) Traefik {
	services := make(map[string]TraefikService)
	service := func(group string) TraefikService {
		s, ok := services[traefikName(group)]
		if !ok {
			s.LoadBalancer.Servers = []TraefikServer{}
			if health != "" {
				s.LoadBalancer.HealthCheck = &TraefikHealthCheck{Path: health, Interval: "2s", Timeout: "1s"}
			}
		}
		return s
	}
	for _, g := range groups {
		services[traefikName(g)] = service(g)
	}
	for _, n := range nodes {
		s := service(string(n.Group))
		s.LoadBalancer.Servers = append(s.LoadBalancer.Servers, TraefikServer{URL: (&url.URL{Scheme: scheme, Host: n.Address}).String()})
		services[traefikName(string(n.Group))] = s
	}
	return Traefik{HTTP: TraefikHTTP{Services: services}}
}

func traefikName(group string) string { return "binnacle-" + group }
