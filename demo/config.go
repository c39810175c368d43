package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/binnacle-project/binnacle"
)

// writeNodeConfig writes node i's own krakend.json: a gateway over the four
// backends and the one block that makes it a node of the cluster.
func writeNodeConfig(o Options, l layout, i int) (path string, err error) {
	dir := filepath.Join(o.Dir, nodeName(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	conf := Config(map[string]string{
		"orders": l.backend("orders"), "search": l.backend("search"),
		"billing": l.backend("billing"), "stock": l.backend("stock"),
	})
	conf["port"] = nodePort + i + l.offset
	conf["listen_ip"] = "127.0.0.1"
	conf["extra_config"].(map[string]any)[binnacle.ConfigBlock] = map[string]any{
		"manager":    l.nodeAPI(),
		"token_file": filepath.Join(l.tokensDir(o), "join.token"),
		"name":       nodeName(i),
		"labels":     map[string]string{"zone": string(rune('a' + i%3))},
		"state_dir":  filepath.Join(dir, "state"),
		"gossip":     "127.0.0.1:" + strconv.Itoa(gossipPort+i+l.offset),
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "krakend.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", fmt.Errorf("write the configuration of %s: %w", nodeName(i), err)
	}
	return path, nil
}

// Config returns a gateway configuration over backends, by name to host:port,
// without port and cluster block: what a revision of the demo looks like.
func Config(backends map[string]string) map[string]any {
	be := func(name, pattern string, more ...func(map[string]any)) map[string]any {
		m := map[string]any{"host": []string{"http://" + backends[name]}, "url_pattern": pattern, "method": "GET"}
		for _, f := range more {
			f(m)
		}
		return m
	}
	group := func(g string) func(map[string]any) { return func(m map[string]any) { m["group"] = g } }
	ep := func(path string, backend ...map[string]any) map[string]any {
		return map[string]any{"endpoint": path, "method": "GET", "timeout": "2s", "backend": backend}
	}
	return map[string]any{
		"version": 3,
		"name":    "demo gateway",
		"timeout": "3s",
		"endpoints": []any{
			ep("/orders/{id}", be("orders", "/orders/{id}")),
			ep("/search", be("search", "/search")),
			ep("/invoices/{id}", be("billing", "/invoices/{id}")),
			ep("/stock/{sku}", be("stock", "/stock/{sku}")),
			ep("/home", be("orders", "/latest", group("orders")), be("search", "/suggest", group("suggestions")), be("billing", "/balance", group("balance"))),
		},
		"extra_config": map[string]any{
			"telemetry/opentelemetry": map[string]any{"service_name": binnacle.ServiceGateway, "trace_sample_rate": 1},
		},
	}
}
